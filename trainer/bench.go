package trainer

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// ISA returns the instruction set of the kernels: "avx512", "avx2" or
// "portable". IGC_ISA forces one; it is an error if this machine lacks it.
func ISA() (string, error) {
	isa, err := kernel.Detect()
	if err != nil {
		return "", err
	}
	return isa.String(), nil
}

// CPU returns the model name of the processor, or its architecture if the
// system does not tell.
func CPU() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// BenchOptions say what Bench measures.
type BenchOptions struct {
	Pair    space.Pair
	Batch   int // pictures of a step, 1 … 4096
	Threads int // 1 … 1024; more than batch/16 are not used
	Steps   int // measured, after one that is not; at least 1
}

// BenchResult is the training step of one pair on Figure 3's network, 100
// classes: forward, backward and update.
type BenchResult struct {
	L, M, Params    int           // Params of one block
	Step            time.Duration // median
	ImagesPerSecond float64
	GFLOPS          float64 // 6 operations for each multiply–add and picture
	PeakGFLOPS      float64 // multiply–adds that touch no memory, as many threads, just before
	ISA             string
	Threads         int
}

// Bench measures the training step of a pair on random pictures of 3×32×32.
func Bench(ctx context.Context, o BenchOptions) (BenchResult, error) {
	isa, err := kernel.Detect()
	if err != nil {
		return BenchResult{}, err
	}
	if o.Batch < 1 || o.Batch > 4096 {
		return BenchResult{}, fmt.Errorf("batch %d: want 1 to 4096 pictures", o.Batch)
	}
	if o.Threads < 1 || o.Threads > 1024 {
		return BenchResult{}, fmt.Errorf("%d threads: want 1 to 1024", o.Threads)
	}
	const classes = 100
	net := space.Figure3(o.Pair, 6, space.Shape{C: 3, H: 32, W: 32}, classes)
	m, err := graph.New(net, o.Batch, graph.Options{ISA: isa, Threads: o.Threads})
	if err != nil {
		return BenchResult{}, err
	}
	defer m.Close()
	initialise(m.Params, 0)
	peak := m.Team().Peak() / 1e9
	x, y := m.Batch(o.Batch)
	for i := range x {
		x[i] = float32(i*7919%2001)/1000 - 1
	}
	for i := range y {
		y[i] = float32(i % classes)
	}
	var times []time.Duration
	for range o.Steps + 1 {
		if err := ctx.Err(); err != nil {
			return BenchResult{}, err
		}
		begin := time.Now()
		if _, err := m.Step(); err != nil {
			return BenchResult{}, err
		}
		m.Update(0.01, 0.9, 1e-4)
		times = append(times, time.Since(begin))
	}
	times = times[1:] // the first one meets cold memory
	slices.Sort(times)
	median := (times[len(times)/2] + times[(len(times)-1)/2]) / 2
	r := BenchResult{L: o.Pair.L, M: o.Pair.M, Params: o.Pair.Params(9), Step: median, ISA: isa.String(), Threads: o.Threads}
	r.ImagesPerSecond = float64(o.Batch) / median.Seconds()
	r.GFLOPS = 6 * float64(net.MultiplyAdds()) * r.ImagesPerSecond / 1e9
	r.PeakGFLOPS = peak
	return r, nil
}
