// Device-hours by day as bars.
import { carried } from "../run/api.js";
import { figure, react } from "../plots.js";

const place = document.getElementById("cost-plot");

if (place) {
  const rows = carried("cost-days");
  const dollars = rows.map((row) => (row.dollars ? `, $${row.dollars.toFixed(2)}` : ""));
  react(place, [{
    type: "bar", x: rows.map((row) => row.day), y: rows.map((row) => row.device_seconds / 3600), customdata: dollars,
    marker: { color: "#0072b2" }, hovertemplate: "%{x}: %{y:.3g} device-hours%{customdata}<extra></extra>",
  }], figure({ xaxis: { type: "category" }, yaxis: { title: { text: "device-hours" }, rangemode: "tozero" }, hovermode: "closest", meta: { label: "Device time by day" } }));
}
