package bench_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/bench"
)

func TestSteps(t *testing.T) {
	between := 0
	o := bench.Options{System: space.PairSystem(space.Pair{L: 2, M: 4}), Batch: 32, Threads: 2, Steps: 4}
	half, amx := o, o
	half.Precision, amx.Precision = search.PrecisionBF16, search.PrecisionAMX
	results, err := bench.Steps(t.Context(), func() error { between++; return nil }, o, half, amx)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 3 || between != 1 {
		t.Fatalf("%d results, between ran %d times", len(results), between)
	}
	// Tensors of 8 channels, but for the pictures of 3: forward conv0 reads 3
	// and writes 8; a block reads, writes, and keeps its primary output (M = 4);
	// the pool reads. Backward conv0 reads pictures, z, g; a block reads x, z, g
	// and its primary output and writes gx, the last one without g but for its
	// 8·16·2 values. The pictures and these values are float32 in all precisions.
	pictures, channels := 3+3, 8+6*(3*8)+8+(8+8)+6*(5*8)-8
	for i, size := range []float64{4, 2, 2} {
		r := results[i]
		// 6 operations × (27·8 + 6·(9·2·16 + 4·4))·1024 + 100·8 multiply–adds a picture.
		if want := 6.0 * 32 * ((216+6*304)*1024 + 800); r.Flops != want {
			t.Errorf("%g operations, want %g", r.Flops, want)
		}
		if want := 4*(32*1024*float64(pictures)+8*16*2) + size*32*1024*float64(channels); r.Bytes != want {
			t.Errorf("%g bytes, want %g", r.Bytes, want)
		}
		if r.Step <= 0 || r.ImagesPerSecond <= 0 || r.PeakFlops <= 0 || r.Bandwidth <= 0 || r.EvalPerSecond <= 0 ||
			r.Input <= 0 || r.Instruction == "" || r.Params != 216+6*304+900 || r.Threads != 2 {
			t.Errorf("%+v", r)
		}
	}
}

// What was measured before the comparison failed is not lost.
func TestStepsEndWithTheErrorOfTheComparison(t *testing.T) {
	broken := errors.New("broken")
	o := bench.Options{System: space.PairSystem(space.Pair{L: 2, M: 1}), Batch: 16, Threads: 1, Steps: 2}
	r, err := bench.Steps(t.Context(), func() error { return broken }, o, o)
	if err != broken || len(r) != 2 {
		t.Fatalf("%v, error %v", r, err)
	}
	for _, r := range r {
		if r.Step <= 0 || r.ImagesPerSecond <= 0 || r.PeakFlops <= 0 || r.EvalPerSecond <= 0 || r.Input <= 0 {
			t.Errorf("%+v", r)
		}
	}
}

// Of one step the second half is empty.
func TestOneStepOfEach(t *testing.T) {
	o := bench.Options{System: space.PairSystem(space.Pair{L: 2, M: 1}), Batch: 16, Threads: 1, Steps: 1}
	r, err := bench.Steps(t.Context(), nil, o, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r) != 2 || r[0].Step <= 0 || r[1].Step <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestScaling(t *testing.T) {
	for _, precision := range []string{"", search.PrecisionBF16, search.PrecisionAMX} {
		r, err := bench.Scaling(t.Context(), bench.Options{System: space.PairSystem(space.Pair{L: 2, M: 1}),
			Batch: 32, Threads: 2, Steps: 2, Precision: precision})
		if err != nil {
			t.Fatal(err)
		}
		if r.One <= 0 || r.Trials <= 0 || r.Threads <= 0 || r.TrialsRatio <= 0 || r.ThreadsRatio <= 0 ||
			r.ArithmeticRatio <= 0 || r.RowsRatio <= 0 || r.Instruction == "" {
			t.Errorf("%q: %+v", precision, r)
		}
	}
}

func TestANetworkTooLargeIsAnErrorThatSaysSo(t *testing.T) {
	step := func(p space.Pair, batch, threads int) error {
		_, err := bench.Steps(t.Context(), nil, bench.Options{System: space.PairSystem(p), Batch: batch, Threads: threads,
			Steps: 1})
		return err
	}
	err := step(space.Pair{L: 10000, M: 100}, 4096, 1)
	if err == nil || !strings.Contains(err.Error(), "IGC-L10000M100, batch 4096: no memory for") {
		t.Errorf("error %v", err)
	}
	err = step(space.Pair{L: 100000, M: 100000}, 64, 1)
	if err == nil || !strings.Contains(err.Error(), "channels: want 1 to 1000000") {
		t.Errorf("error %v", err)
	}
	for _, n := range [][2]int{{1 << 30, 1}, {1, 1 << 30}} {
		if step(space.Pair{L: 1, M: 1}, n[0], n[1]) == nil {
			t.Errorf("no error for a batch of %d on %d threads", n[0], n[1])
		}
	}
}

func BenchmarkStep(b *testing.B) {
	for _, precision := range []string{search.PrecisionF32, search.PrecisionBF16, search.PrecisionAMX} {
		for _, p := range []space.Pair{{L: 64, M: 1}, {L: 40, M: 2}, {L: 12, M: 6}, {L: 1, M: 23}} {
			b.Run(fmt.Sprintf("%s/%v", precision, p), func(b *testing.B) {
				r, err := bench.Steps(b.Context(), nil, bench.Options{System: space.PairSystem(p), Batch: 16, Threads: 1,
					Steps: b.N, Precision: precision})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(r[0].Step.Nanoseconds()), "ns/op")
				b.ReportMetric(r[0].FlopsPerSecond()/1e9, "GFLOP/s")
				b.ReportMetric(100*r[0].FlopsPerSecond()/r[0].PeakFlops, "%peak")
			})
		}
	}
}
