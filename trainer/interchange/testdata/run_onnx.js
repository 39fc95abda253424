// Runs ONNX models in onnxruntime, as TestONNXRuntime starts it: node run_onnx.js NAME…
// NAME.onnx is a model and NAME.json pictures for it. Prints a list of the scores of each as JSON.
const fs = require("node:fs");
const ort = require("onnxruntime-node");

async function main() {
  const scores = [];
  for (const name of process.argv.slice(2)) {
    const given = JSON.parse(fs.readFileSync(name + ".json"));
    const session = await ort.InferenceSession.create(name + ".onnx", { intraOpNumThreads: 1 });
    const pictures = new ort.Tensor("float32", Float32Array.from(given.pictures), given.shape);
    const out = await session.run({ pictures });
    scores.push(Array.from(out.scores.data));
  }
  console.log(JSON.stringify(scores));
}

main().catch((e) => { console.error(e); process.exit(1); });
