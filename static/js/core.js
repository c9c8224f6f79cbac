// What every page has. Behaviour of one page is in its own module beside it.
import { startKeys } from "./keys.js";
import { startLiveParts } from "./live.js";
import { startPalette } from "./palette.js";
import { startCopying, startDialogs, startForms, startMenus, startTabs, startTimes } from "./parts.js";
import { startRail } from "./rail.js";
import { startTheme } from "./theme.js";
import { startToasts } from "./toasts.js";

startTheme();
startToasts();
startDialogs();
startMenus();
startForms();
startTimes();
startTabs();
startCopying();
startPalette();
startKeys();
startRail();
startLiveParts();
