// The list of deployments follows the project's socket.
import { LiveTable } from "./live_table.js";

new LiveTable({ kinds: new Set(["deployment", "replica", "state"]) });
