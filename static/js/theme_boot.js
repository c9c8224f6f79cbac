// Runs before the first paint, so that a chosen theme never flashes. The switch itself is in theme.js.
(() => {
  try {
    const theme = localStorage.getItem("r1-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is off: the system's theme it is
  }
})();
