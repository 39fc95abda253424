package trainer

import (
	"errors"
	"math"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

func TestLearningRate(t *testing.T) {
	s := search.Default()
	t.Run("400 epochs fall after 200, 300 and 350", func(t *testing.T) {
		const perEpoch = 781
		for epoch, want := range map[int]float64{1: .1, 200: .1, 201: .01, 300: .01, 301: .001, 350: .001, 351: .0001,
			400: .0001} {
			for _, step := range []int{0, perEpoch - 1} {
				if got := learningRate(s, (epoch-1)*perEpoch+step, 400*perEpoch); math.Abs(got-want) > 1e-12 {
					t.Errorf("epoch %d, step %d: %g, want %g", epoch, step, got, want)
				}
			}
		}
	})
	t.Run("a short training falls at the same fractions of its steps", func(t *testing.T) {
		var got []float64
		for step := range 8 {
			got = append(got, learningRate(s, step, 8))
		}
		want := []float64{.1, .1, .1, .1, .01, .01, .001, .0001}
		for i := range want {
			if math.Abs(got[i]-want[i]) > 1e-12 {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
	t.Run("falls at the step n of N where a drop is n/N, for every n and N", func(t *testing.T) {
		for steps := 2; steps <= 1000; steps++ {
			for n := 1; n < steps; n++ {
				s.Drops = []float64{float64(n) / float64(steps)}
				before, after := learningRate(s, n-1, steps), learningRate(s, n, steps)
				if before != s.LearningRate || after != s.LearningRate/10 {
					t.Fatalf("%d/%d: %g at step %d and %g at step %d", n, steps, before, n-1, after, n)
				}
			}
		}
	})
	t.Run("falls at the next step if a drop lies between two, however the drop was computed", func(t *testing.T) {
		for _, c := range []struct {
			drop        float64
			steps, want int
		}{{0.071, 100, 8}, {0.0799, 100, 8}, {1. / 3, 100, 34}, {0.9999, 7, 7}, {0.001, 7, 1},
			{sum(0.1, 0.2), 10, 3}, {0.07, 100, 7}, {0.56, 25, 14}, {0.5, 1, 1}} {
			if got := firstStep(c.drop, c.steps); got != c.want {
				t.Errorf("%v of %d: step %d, want %d", c.drop, c.steps, got, c.want)
			}
		}
	})
	t.Run("falls where it fell for the drops of the shipped studies", func(t *testing.T) {
		for _, d := range []float64{0.5, 0.75, 0.875} {
			for epochs := 8; epochs <= 400; epochs += 8 {
				for _, perEpoch := range []int{1, 31, 500, 781} {
					if got, want := firstStep(d, epochs*perEpoch), int(d*float64(epochs))*perEpoch; got != want {
						t.Errorf("%g of %d epochs: step %d, want %d", d, epochs, got, want)
					}
				}
			}
		}
	})
}

// TestWarmupBits: the linear schedule of the short studies, which warms up for a tenth of the steps, has the bits that
// results are stored with.
func TestWarmupBits(t *testing.T) {
	s := search.Default()
	s.Schedule, s.Warmup = search.ScheduleLinear, 0.1
	for steps := 1; steps <= 2000; steps++ {
		warm := s.Warmup * float64(steps)
		for step := range steps {
			want := s.LearningRate * (1 - (float64(step)-warm)/(float64(steps)-warm))
			if float64(step) < warm {
				want = s.LearningRate * min(1, float64(step+1)/warm)
			}
			if got := learningRate(s, step, steps); got != want {
				t.Fatalf("step %d of %d: %v, want %v", step, steps, got, want)
			}
		}
	}
}

// sum adds at run time, where 0.1 + 0.2 is 0.30000000000000004.
func sum(terms ...float64) (x float64) {
	for _, term := range terms {
		x += term
	}
	return x
}

func TestSchedules(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*search.Study)
		want []float64 // of eight steps
	}{
		"linear, from the first step to one step before 0": {
			func(s *search.Study) { s.Schedule = search.ScheduleLinear },
			[]float64{.1, .0875, .075, .0625, .05, .0375, .025, .0125}},
		"linear after a rise of two steps": {
			func(s *search.Study) { s.Schedule, s.Warmup = search.ScheduleLinear, 0.25 },
			[]float64{.05, .1, .1, .1 * 5 / 6, .1 * 4 / 6, .1 * 3 / 6, .1 * 2 / 6, .1 * 1 / 6}},
		"cosine: (1 + cos πk/8)/2": {
			func(s *search.Study) { s.Schedule = search.ScheduleCosine },
			[]float64{.1, .0961940, .0853553, .0691342, .05, .0308658, .0146447, .0038060}},
		"step after a rise of two steps": {
			func(s *search.Study) { s.Warmup = 0.25 },
			[]float64{.05, .1, .1, .1, .01, .01, .001, .0001}},
	} {
		s := search.Default()
		c.set(&s)
		for step, want := range c.want {
			if got := learningRate(s, step, len(c.want)); math.Abs(got-want) > 1e-7 {
				t.Errorf("%s: step %d has %.7f, want %.7f", name, step, got, want)
			}
		}
	}
}

// The shares of all steps make the average Σ β^(t−i)·w_i / Σ β^(t−i).
func TestAverageShare(t *testing.T) {
	weights := []float64{3, -1, 4, 1, -5, 9, 2, 6}
	for horizon, beta := range map[float64]float64{4: 0.75, 0.5: 0.75, 1: 0, 0.01: 0, 1000: 0.999} {
		s := search.Default()
		s.WeightAverage = horizon
		average, sum, norm := 0., 0., 0.
		for step, w := range weights {
			average += averageShare(s, step, len(weights)) * (w - average)
			sum, norm = beta*sum+w, beta*norm+1
			if math.Abs(average-sum/norm) > 1e-9 {
				t.Errorf("horizon %g, step %d: %.9f, want %.9f", horizon, step, average, sum/norm)
			}
		}
	}
}

// FuzzCheckpoint: no bytes make decode panic or read outside, and what it
// accepts is exactly as long as a checkpoint.
func FuzzCheckpoint(f *testing.F) {
	m, err := graph.New(space.Figure3(space.Pair{L: 2, M: 1}, 1, space.Shape{C: 3, H: 1, W: 1}, 2), 1,
		graph.Options{ISA: kernel.Portable, Threads: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(m.Close)
	j := search.Job{Key: search.Key{System: space.PairSystem(space.Pair{L: 2, M: 1})}}
	e := &cpu{model: m}
	good, err := state(e, j, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(checkpointMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if decode(tensors(m), header("portable", j, 1), b) == nil && len(b) != len(good) {
			t.Errorf("%d bytes accepted, a checkpoint has %d", len(b), len(good))
		}
	})
}

func TestACheckpointOfAnotherInstructionSetIsRefused(t *testing.T) {
	all := kernel.Available()
	if len(all) < 2 {
		t.Skip("this machine has one instruction set")
	}
	net := space.Figure3(space.Pair{L: 2, M: 1}, 1, space.Shape{C: 3, H: 1, W: 1}, 2)
	j := search.Job{Key: search.Key{System: space.PairSystem(space.Pair{L: 2, M: 1})}}
	for _, precision := range []string{"", search.PrecisionBF16, search.PrecisionAMX} {
		var engines [2]Engine
		for i := range engines {
			r := Recipe{Precision: precision}
			o := r.GraphOptions()
			o.ISA = all[i]
			m, err := graph.New(net, 1, o)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			engines[i] = &cpu{model: m, r: r}
		}
		made, err := state(engines[0], j, 1)
		if err != nil {
			t.Fatal(err)
		}
		c := &search.Checkpoint{Epoch: 1, State: made}
		if err := restore(engines[0], j, c); err != nil {
			t.Error(err)
		}
		err = restore(engines[1], j, c)
		want := ArithmeticError{Made: all[0].String(), Ours: all[1].String()}
		if precision == "" && !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if precision != "" && err != nil {
			t.Errorf("in %s, whose bits are the same: %v", precision, err)
		}
	}
}
