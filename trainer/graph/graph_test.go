package graph_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sort"
	"sync"
	"testing"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// formula makes the same numbers as testdata/torch_losses.py: n in [−1, 1).
func formula(tag, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		u := uint32(uint64(i)*2654435761 + uint64(tag)*40503 + 12345)
		out[i] = float32(u>>8)/(1<<23) - 1
	}
	return out
}

// newSystem is the model of any network, by its name.
func newSystem(t *testing.T, name string, p space.Plan, batch int, o graph.Options) *graph.Model {
	t.Helper()
	s, err := space.ParseSystem(name)
	if err != nil {
		t.Fatal(err)
	}
	net, err := s.Network(p)
	if err != nil {
		t.Fatal(err)
	}
	m, err := graph.New(net, batch, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func newModel(t *testing.T, p space.Pair, blocks, side, classes, batch int, o graph.Options) *graph.Model {
	t.Helper()
	m, err := graph.New(space.Figure3(p, blocks, space.Shape{C: 3, H: side, W: side}, classes), batch, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// TestBuildTogether builds models at the same time, as several trials do, in a process that has built none before. It
// is a test for the race detector.
func TestBuildTogether(t *testing.T) {
	t.Parallel()
	if os.Getenv("GRAPH_BUILD_TOGETHER") == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestBuildTogether$")
		c.Env = append(os.Environ(), "GRAPH_BUILD_TOGETHER=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	net := space.Figure3(space.Pair{L: 3, M: 2}, 1, space.Shape{C: 3, H: 8, W: 8}, 10)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			m, err := graph.New(net, 16, graph.Options{ISA: kernel.Available()[0], Threads: 1})
			if err != nil {
				t.Error(err)
				return
			}
			m.Close()
		})
	}
	wg.Wait()
}

// fill sets parameter tag of order to the formula, as the script does.
func fill(m *graph.Model, order []string) {
	for _, p := range m.Params {
		scale := len(p.Shape) == 1 && p.Name[len(p.Name)-6:] == "weight" // of a normalisation
		for i, v := range formula(slices.Index(order, p.Name), len(p.Value)) {
			if scale {
				p.Value[i] = 1 + v/4
			} else {
				p.Value[i] = v / 2
			}
		}
	}
}

func feed(m *graph.Model, x []float32, labels []int) {
	in := m.Net.Layers[0].In
	pictures, y := m.Batch(len(labels))
	kernel.Pack(pictures, x, len(labels), in.C, in.H, in.W)
	for i, l := range labels {
		y[i] = float32(l)
	}
}

func step(t *testing.T, m *graph.Model) float64 {
	t.Helper()
	loss, err := m.Step()
	if err != nil {
		t.Fatal(err)
	}
	return loss
}

func names(m *graph.Model) []string {
	var s []string
	for _, p := range m.Params {
		s = append(s, p.Name)
	}
	return s
}

// near checks |got − want| ≤ tol·(rms of want + |want|).
func near(t *testing.T, name string, got []float32, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	var sq float64
	for _, v := range want {
		sq += v * v
	}
	rms := math.Sqrt(sq / float64(len(want)))
	for i := range got {
		if !(math.Abs(float64(got[i])-want[i]) <= tol*(rms+math.Abs(want[i]))) {
			t.Errorf("%s[%d] = %g, want %g (rms %g)", name, i, got[i], want[i], rms)
			return
		}
	}
}

// torchLosses is what testdata/torch_losses.py recorded in float64 (PyTorch 1.13.1,
// CPU), of a network of the pair L3M2 with two blocks.
type torchLosses struct {
	Torch          string
	Order          []string
	Losses         []float64
	Evaluation     float64
	FirstGradients map[string][]float64 `json:"first_gradients"`
	Final          map[string][]float64
	// Of averages of the weights with a horizon of four steps, by precise
	// statistics of three batches.
	PreciseEvaluation float64 `json:"precise_evaluation"`
	Evaluated         map[string][]float64
}

const torchSide, torchBatch, torchClasses = 6, 5, 4

// TestTenStepsAgreeWithPyTorch: PyTorch's values are float64, ours float32, so ten
// steps may differ by some 1e-5.
func TestTenStepsAgreeWithPyTorch(t *testing.T) {
	var want torchLosses
	raw, err := os.ReadFile("testdata/torch_losses.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	for _, isa := range kernel.Available() {
		t.Run(isa.String(), func(t *testing.T) {
			m := newModel(t, space.Pair{L: 3, M: 2}, 2, torchSide, torchClasses, torchBatch,
				graph.Options{ISA: isa, Threads: 1, DecayAll: true, Average: true, Precise: true})
			fill(m, want.Order)
			want.train(t, m)
			want.evaluate(t, m)
		})
	}
}

// feed puts batch number tag into the model, with the labels of a step.
func (want torchLosses) feed(m *graph.Model, tag, step int) {
	labels := make([]int, torchBatch)
	for i := range labels {
		labels[i] = (step + i*i) % torchClasses
	}
	feed(m, formula(tag, torchBatch*3*torchSide*torchSide), labels)
}

func (want torchLosses) train(t *testing.T, m *graph.Model) {
	t.Helper()
	for s, wantLoss := range want.Losses {
		want.feed(m, 100+s, s)
		loss := step(t, m)
		if math.Abs(loss-wantLoss) > 2e-5*wantLoss {
			t.Errorf("loss of step %d = %.8f, PyTorch has %.8f", s, loss, wantLoss)
		}
		if s == 0 {
			for _, p := range m.Params {
				near(t, "gradient of "+p.Name, p.Grad, want.FirstGradients[p.Name], 2e-5)
			}
		}
		const beta = 1 - 1./4
		share := (1 - beta) / (1 - math.Pow(beta, float64(s+1)))
		m.Update(graph.Rates{Learning: 0.05, Average: float32(share)}, 0.9, 0.01)
	}
	if got := len(m.Params) + len(m.Stats); got != len(want.Final) {
		t.Errorf("%d tensors, PyTorch has %d", got, len(want.Final))
	}
	nearAll(t, "", want.Final, m.Params, m.Stats)
}

// evaluate does so after train: first the weights by the running statistics, then
// their averages by precise statistics.
func (want torchLosses) evaluate(t *testing.T, m *graph.Model) {
	t.Helper()
	last := len(want.Losses) - 1
	evaluate := func(what string, want float64) {
		t.Helper()
		loss, err := m.Evaluate()
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(loss-want) > 1e-4*want {
			t.Errorf("%s: evaluation loss = %.8f, PyTorch has %.8f", what, loss, want)
		}
	}
	// The running statistics take the place of the precise ones, which are not
	// measured yet.
	for i, s := range m.Stats {
		copy(m.Precise[i].Value, s.Value)
	}
	want.feed(m, 100+last, last)
	evaluate("weights, running statistics", want.Evaluation)
	m.Exchange()
	for k := range 3 {
		want.feed(m, 200+k, last)
		if err := m.Measure(); err != nil {
			t.Fatal(err)
		}
	}
	m.Measured()
	want.feed(m, 100+last, last)
	evaluate("averages, precise statistics", want.PreciseEvaluation)
	nearAll(t, "evaluated ", want.Evaluated, m.Params, m.Precise)
}

// nearAll checks all tensors that PyTorch has.
func nearAll(t *testing.T, what string, want map[string][]float64, params []graph.Param, stats []graph.Stat) {
	t.Helper()
	got := map[string][]float32{}
	for _, p := range params {
		got[p.Name] = p.Value
	}
	for _, s := range stats {
		got[s.Name] = s.Value
	}
	for name, w := range want {
		near(t, what+name, got[name], w, 1e-4)
	}
}

// TestGradientsAgreeWithFiniteDifferences goes through the whole network, as
// (f(w+h) − f(w−h)) / 2h with the loss in float64. Elements where the two
// one-sided differences disagree lie at a kink of a ReLU and are left out; at
// most a third may be. Networks with more kinks are held to PyTorch's gradients
// (TestNetworksAgreeWithPyTorch).
func TestGradientsAgreeWithFiniteDifferences(t *testing.T) {
	flat := space.Plan{Layout: space.Flat, Depth: 4}
	for _, c := range []struct {
		system string
		plan   space.Plan
		batch  int
	}{
		{"IGC-L1M7", flat, 3}, {"IGC-L5M1", flat, 3}, {"IGC-L4M3", flat, 18},
		{"IGC-L3M4+1x3", flat, 3}, {"IGC-L3M4+5x5", flat, 3}, {"IGC-L3M4+ReLU", flat, 3},
		{"IGC-L4M2+Ident.", flat, 3}, {"SumFusion", flat, 3},
	} {
		t.Run(fmt.Sprintf("%s, %s, batch %d", c.system, c.plan.Layout, c.batch), func(t *testing.T) {
			const side, classes, h = 4, 3, 2e-3
			isa, err := kernel.Detect()
			if err != nil {
				t.Fatal(err)
			}
			c.plan.In, c.plan.Classes = space.Shape{C: 3, H: side, W: side}, classes
			m := newSystem(t, c.system, c.plan, c.batch, graph.Options{ISA: isa, Threads: 1})
			fill(m, names(m))
			labels := make([]int, c.batch)
			for i := range labels {
				labels[i] = i % classes
			}
			feed(m, formula(7, c.batch*3*side*side), labels)
			centre := step(t, m)
			var all, kinks int
			for _, p := range m.Params {
				grad := slices.Clone(p.Grad)
				var errs []float64
				var norm float64
				for i := 0; i < len(grad); i += 1 + len(grad)/12 {
					old := p.Value[i]
					p.Value[i] = old + h
					up := step(t, m)
					p.Value[i] = old - h
					down := step(t, m)
					p.Value[i] = old
					fd, d := (up-down)/(2*h), float64(grad[i])
					all++
					if bend := (up + down - 2*centre) / h; math.Abs(bend) > 0.1*math.Abs(fd)+0.02 {
						kinks++
						continue
					}
					errs = append(errs, math.Abs(fd-d))
					norm = max(norm, math.Abs(d), math.Abs(fd))
				}
				sort.Float64s(errs)
				if len(errs) > 0 && errs[len(errs)/2] > 0.01*norm+2e-4 {
					t.Errorf("%s: median error %.2g, largest gradient %.2g", p.Name, errs[len(errs)/2], norm)
				}
			}
			if kinks > all/3 {
				t.Errorf("%d of %d differences lie at kinks", kinks, all)
			}
		})
	}
}

func TestOneBatchIsLearntByHeart(t *testing.T) {
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	const side, classes, batch = 8, 4, 20
	m := newModel(t, space.Pair{L: 12, M: 2}, 2, side, classes, batch, graph.Options{ISA: isa, Threads: 1})
	fill(m, names(m))
	labels := make([]int, batch)
	for i := range labels {
		labels[i] = (i * 7) % classes
	}
	noise := make([]float32, batch*3*side*side)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = float32(r.NormFloat64())
	}
	feed(m, noise, labels)
	first := step(t, m)
	var last float64
	for range 300 {
		last = step(t, m)
		m.Update(graph.Rates{Learning: 0.05}, 0.9, 0)
	}
	if last > 0.05*first || m.Correct(true) != batch {
		t.Errorf("loss %.4f → %.4f, %d of %d right", first, last, m.Correct(true), batch)
	}
}

// TestThreadsDoNotChangeABit trains three steps on a batch with a ragged last
// block and compares every parameter exactly.
func TestThreadsDoNotChangeABit(t *testing.T) {
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	const side, classes, batch = 6, 5, 50
	var first []graph.Param
	for _, threads := range []int{1, 2, 3, 7} {
		m := newModel(t, space.Pair{L: 5, M: 3}, 2, side, classes, batch, graph.Options{ISA: isa, Threads: threads})
		fill(m, names(m))
		labels := make([]int, batch)
		for s := range 3 {
			feed(m, formula(50+s, batch*3*side*side), labels)
			step(t, m)
			m.Update(graph.Rates{Learning: 0.1}, 0.9, 1e-4)
		}
		if first == nil {
			first = m.Params
			continue
		}
		for i, p := range m.Params {
			if !slices.Equal(p.Value, first[i].Value) {
				t.Errorf("%d threads: %s differs", threads, p.Name)
			}
		}
	}
}

func TestASmallerBatchUsesOnlyItsPictures(t *testing.T) {
	// 17 pictures in a model for 40 give the loss and gradients of a model for 17.
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	const side, classes = 5, 3
	var grads [2][]float32
	var losses [2]float64
	for i, size := range []int{17, 40} {
		m := newModel(t, space.Pair{L: 2, M: 2}, 1, side, classes, size, graph.Options{ISA: isa, Threads: 1})
		fill(m, names(m))
		if size == 40 { // leave other pictures in the third block
			feed(m, formula(9, 40*3*side*side), make([]int, 40))
			step(t, m)
		}
		feed(m, formula(8, 17*3*side*side), make([]int, 17))
		losses[i] = step(t, m)
		for _, p := range m.Params {
			grads[i] = append(grads[i], p.Grad...)
		}
	}
	if losses[0] != losses[1] || !slices.Equal(grads[0], grads[1]) {
		t.Errorf("losses %g and %g; gradients equal: %v", losses[0], losses[1], slices.Equal(grads[0], grads[1]))
	}
}

func TestAStepAllocatesNothing(t *testing.T) {
	isa, err := kernel.Detect()
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(t, space.Pair{L: 4, M: 2}, 2, 8, 3, 16, graph.Options{ISA: isa, Threads: 1})
	fill(m, names(m))
	feed(m, formula(1, 16*3*64), make([]int, 16))
	if n := testing.AllocsPerRun(10, func() {
		step(t, m)
		m.Update(graph.Rates{Learning: 0.1}, 0.9, 1e-4)
	}); n != 0 {
		t.Errorf("%g allocations in a step", n)
	}
}
