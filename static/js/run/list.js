// The list of runs: filters act while you type, and the table is fetched again when the project's socket says so.
import { LiveTable } from "../deployments/live_table.js";

new LiveTable({ kinds: new Set(["state", "progress", "run"]) });
