//go:build gpu

package bench_test

import (
	"testing"

	"igcsearch/space"
	"igcsearch/trainer/bench"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/gpu/emulator"
)

func TestMain(m *testing.M) { emulator.Main(m, "../gpu/kernels") }

func TestGPU(t *testing.T) {
	d, err := gpu.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	var alone bench.GPUResult
	r, err := bench.GPU(t.Context(), bench.Options{System: space.PairSystem(space.Pair{L: 3, M: 2}),
		Plan:  space.Plan{Layout: space.Flat, In: space.Shape{C: 3, H: 8, W: 8}, Classes: 4},
		Batch: 3, Threads: 1, Steps: 1}, d, func(r bench.GPUResult) { alone = r })
	if err != nil {
		t.Fatal(err)
	}
	if r.Step <= 0 || r.Queue < 1 || r.Launch <= 0 || r.Launches < 40 || r.Memory <= 0 || r.Bytes <= 0 || r.Trials < 1 || r.AllPerSecond <= 0 ||
		r.PeakFlops <= 0 || r.Bandwidth <= 0 || !(r.Share() > 0) {
		t.Errorf("%+v", r)
	}
	if alone.Step != r.Step || alone.Queue != r.Queue || alone.Flops != r.Flops || alone.Trials != 0 {
		t.Errorf("alone %+v", alone)
	}
}
