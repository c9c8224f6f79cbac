// The pages of the REST API come out of a package, which is dark where its root has this class: as the platform's theme says.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem("r1-theme");
    } catch {
      // storage is off: the system's theme it is
    }
    document.documentElement.classList.toggle("dark-mode", chosen ? chosen === "dark" : system.matches);
  };
  system.addEventListener("change", follow);
  addEventListener("storage", follow);
  follow();
})();
