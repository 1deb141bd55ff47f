// Attention kernels compared: each is measured on the model's heads, one after the other.
import { getJson } from "./api.js";
import { bytes, duration, number, scrolling, table } from "./chart.js";
import { bars } from "./drawing.js";

const $ = (id) => document.getElementById(id);
const TEXTBOOK = "textbook";

// Measures the kernels of a server and draws what there is after each.
export async function compareKernels(model, run, say) {
  const [phase, seq] = [$("kernel-phase").value, Number($("kernel-length").value)];
  const results = [];
  for (const kernel of run.kernels) {
    say(`Measuring ${kernel} …`);
    const measured = await getJson("/measure/attention", { body: { model, kernels: [kernel], phase, seq } });
    results.push(...measured.results);
    draw(results, measured);
  }
}

function draw(results, measured) {
  const { heads, n_head, head_dim, kv_precision, threads, phase, seq } = measured;
  const textbook = results.find(({ kernel }) => kernel === TEXTBOOK)?.median_seconds;
  const ratio = ({ median_seconds: seconds }) => (textbook ? textbook / seconds : 1);
  const most = Math.max(...results.map(ratio));
  const what = phase === "prefill" ? `${seq} tokens at once` : `one token onto ${seq - 1} others`;
  $("kernel-note").textContent =
    `${what}; ${heads} of the model’s ${n_head} heads of ${head_dim} dimensions, keys and values in ` +
    `${kv_precision}, ${threads} threads. A longer bar is a faster kernel.`;
  $("kernel-bars").replaceChildren(
    bars(
      results.map((result) => ({
        name: result.kernel,
        fraction: ratio(result) / most,
        value: `${duration(result.median_seconds)}, ${number(ratio(result))} ×`,
      })),
    ),
  );
  const columns = ["Kernel", "Time", "× textbook", "GFLOP/s", "Memory", "Largest error", "What it is"];
  const rows = results.map((result) => [
    result.kernel,
    duration(result.median_seconds),
    number(ratio(result)),
    number(result.achieved_gflops),
    bytes(result.workspace_bytes),
    result.max_absolute_error.toExponential(1),
    result.description,
  ]);
  $("kernel-table").replaceChildren(scrolling("Attention kernels", table("Attention kernels", columns, rows)));
}
