package trainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// remote is the processor's engine behind a memory of its own, as a GPU's is.
type remote struct {
	*cpu
	host       *graph.Model
	arithmetic string
	leave      func() // gives its place back
}

func (r *remote) Model() *graph.Model { return r.host }
func (r *remote) Arithmetic() string  { return r.arithmetic }
func (r *remote) Push() error         { return r.copy(r.cpu.model, r.host) }
func (r *remote) Pull() error         { return r.copy(r.host, r.cpu.model) }

func (r *remote) copy(to, from *graph.Model) error {
	for i, t := range tensors(from) {
		copy(tensors(to)[i].Value, t.Value)
	}
	for i, p := range from.Params {
		copy(to.Params[i].Grad, p.Grad)
	}
	return nil
}

func (r *remote) Close() {
	r.cpu.Close()
	r.host.Close()
	r.leave()
}

// fakeGPU has places for so many trainings at once.
type fakeGPU struct {
	arithmetic string
	places     int
	tf32       bool // it has search.PrecisionTF32
	taken      atomic.Int32
	workers    func(net space.Network, n int) (int, error) // nil: places
	lags       bool                                        // its engines are lagging
}

func (d *fakeGPU) Arithmetic() string { return d.arithmetic }
func (d *fakeGPU) Reset()             {}

func (d *fakeGPU) Has(precision string) bool { return precision == "" || d.tf32 }

func (d *fakeGPU) Start(net space.Network, n int, set *dataset.Set, r Recipe) (Engine, error) {
	if int(d.taken.Add(1)) > d.places {
		d.taken.Add(-1)
		return nil, fmt.Errorf("%w for %s", search.ErrNoMemory, net.Name)
	}
	c, err := newCPU(net, n, 1, set, r)
	if err != nil {
		return nil, err
	}
	host, err := graph.New(net, 1, graph.Options{Threads: 1})
	if err != nil {
		return nil, err
	}
	arithmetic := search.Recipe{Precision: r.Precision}.Arithmetic(d.arithmetic)
	e := &remote{c, host, arithmetic, func() { d.taken.Add(-1) }}
	if d.lags {
		return lagging{e}, nil
	}
	return e, nil
}

func (d *fakeGPU) Workers(_ context.Context, net space.Network, n int, _ *dataset.Set) (int, error) {
	switch {
	case d.workers != nil:
		return d.workers(net, n)
	case d.places == 0:
		return 0, search.ErrNoMemory
	}
	return d.places, nil
}

const (
	sm80 = "cuda sm_80 (ptxas 11.8)"
	sm90 = "cuda sm_90 (ptxas 11.8)"
)

func newFakeGPU(arithmetic string, places int) *device {
	return &device{Device: &fakeGPU{arithmetic: arithmetic, places: places}}
}

func onDevices(list ...*device) *Trainer {
	t := New(Options{})
	t.devices = list
	return t
}

func tinyJob(t *testing.T, epochs int) search.Job {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset, s.TrainPictures, s.TestPictures = "tiny", "synthetic", 40, 30
	s.Pairs, s.Blocks, s.Epochs, s.Batch, s.Seeds = []string{"4x2", "3x2"}, 1, epochs, 16, search.FirstSeeds(1)
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return search.Job{Study: s, Key: search.Key{System: space.PairSystem(space.Pair{L: 4, M: 2})}}
}

// listener keeps the checkpoints.
type listener struct {
	checkpoints []search.Checkpoint
	onStep      func()
}

func (l *listener) Step(int, int, int) {
	if l.onStep != nil {
		l.onStep()
	}
}

func (l *listener) Epoch(_ search.Epoch, c search.Checkpoint) error {
	l.checkpoints = append(l.checkpoints, c)
	return nil
}

func TestADeviceHasMemoryOfItsOwn(t *testing.T) {
	job := tinyJob(t, 3)
	var here, there, rest listener
	if err := New(Options{}).Train(t.Context(), job, &here); err != nil {
		t.Fatal(err)
	}
	device := newFakeGPU(sm90, 1)
	tr := onDevices(device)
	if err := tr.Train(t.Context(), job, &there); err != nil {
		t.Fatal(err)
	}
	after := len(checkpointMagic) + 4 // the arithmetic
	for i, c := range here.checkpoints {
		if !bytes.Equal(c.State[after:], there.checkpoints[i].State[after:]) {
			t.Errorf("epoch %d: other tensors than on the processor", i+1)
		}
	}
	job.From = &there.checkpoints[0]
	if err := tr.Train(t.Context(), job, &rest); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rest.checkpoints[1].State, there.checkpoints[2].State) {
		t.Error("a training that went on ends with other tensors")
	}
	job.From = nil
	var traces [2]bytes.Buffer
	for i, tr := range []*Trainer{New(Options{}), tr} {
		if err := tr.Trace(t.Context(), job, 3, &traces[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(traces[0].Bytes(), traces[1].Bytes()) {
		t.Error("the trace is another one")
	}
	if device.running != 0 {
		t.Errorf("%d trainings run on after their end", device.running)
	}
}

func TestTrainingsTakeTheDeviceWithTheFewest(t *testing.T) {
	list := []*device{newFakeGPU(sm80, 9), newFakeGPU(sm90, 9), newFakeGPU(sm90, 9)}
	tr := onDevices(list...)
	counts := func() (n []int) {
		for _, d := range list {
			n = append(n, d.running)
		}
		return n
	}
	var took []*device
	take := func(job search.Job) *device {
		d, err := tr.take(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for range 4 {
		took = append(took, take(search.Job{}))
	}
	if got := counts(); !slices.Equal(got, []int{2, 1, 1}) {
		t.Errorf("four trainings on three devices: %v", got)
	}
	for _, i := range []int{0, 3} {
		if err := tr.giveBack(took[i], nil); err != nil {
			t.Error(err)
		}
	}
	t.Run("that can go on from the checkpoint", func(t *testing.T) {
		job := search.Job{From: &search.Checkpoint{State: header(sm90, search.Job{}, 1)}}
		if d := take(job); d != list[1] {
			t.Errorf("took %v, want the first with sm_90", d.Arithmetic())
		}
		job.From.State = header("avx2", search.Job{}, 1) // no device can
		if d := take(job); d != list[0] {
			t.Errorf("took %v, want any", d.Arithmetic())
		}
	})
	t.Run("that has what the precision needs", func(t *testing.T) {
		list[2].Device.(*fakeGPU).tf32 = true
		job := search.Job{Study: search.Study{Recipe: search.Recipe{Precision: search.PrecisionTF32}},
			From: &search.Checkpoint{State: header(sm80+" tf32", search.Job{}, 1)}}
		if d, err := tr.take(t.Context(), job); d != list[2] || err != nil {
			t.Errorf("took %v, %v, want the only one with TF32", d, err)
		}
	})
	t.Run("at the same time", func(t *testing.T) {
		a, b := newFakeGPU(sm90, 9), newFakeGPU(sm90, 9)
		tr := onDevices(a, b)
		// Each holds its place until all four have one.
		var all, wg sync.WaitGroup
		all.Add(4)
		for range 4 {
			wg.Go(func() {
				once := sync.OnceFunc(func() { all.Done(); all.Wait() })
				if err := tr.Train(t.Context(), tinyJob(t, 1), &listener{onStep: func() {
					once()
					tr.mu.Lock()
					defer tr.mu.Unlock()
					if a.running > 2 || b.running > 2 {
						t.Errorf("%d and %d trainings", a.running, b.running)
					}
				}}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if a.running+b.running != 0 {
			t.Errorf("%d and %d trainings run on", a.running, b.running)
		}
	})
}

func TestADeviceWithoutMemory(t *testing.T) {
	full := newFakeGPU(sm90, 0)
	err := onDevices(full).Train(t.Context(), tinyJob(t, 1), &listener{})
	if !errors.Is(err, search.ErrNoMemory) || err.Error() != "not enough memory for IGC-L4M2" || full.running != 0 {
		t.Errorf("error %v, %d trainings run on", err, full.running)
	}
	large := tinyJob(t, 1)
	large.Study.Batch, large.Study.TrainPictures = 4096, 0
	large.System = space.PairSystem(space.Pair{L: 10000, M: 100})
	if err := New(Options{}).Train(t.Context(), large, &listener{}); !errors.Is(err, search.ErrNoMemory) ||
		!strings.Contains(err.Error(), ": no memory for ") {
		t.Errorf("the processor's error: %v", err)
	}
}

func TestWorkers(t *testing.T) {
	for want, list := range map[int][]*device{5: {newFakeGPU("", 3), newFakeGPU("", 2)},
		4: {newFakeGPU("", 3), newFakeGPU("", 0)}} {
		if n, err := onDevices(list...).Workers(t.Context(), tinyJob(t, 1).Study); n != want || err != nil {
			t.Errorf("%d workers, %v, want %d", n, err, want)
		}
	}
	job := tinyJob(t, 1)
	job.Study.Precision = search.PrecisionTF32
	able := newFakeGPU(sm80, 3)
	able.Device.(*fakeGPU).tf32 = true
	if n, err := onDevices(able, newFakeGPU("cuda sm_75", 2)).Workers(t.Context(), job.Study); n != 3 || err != nil {
		t.Errorf("%d workers, %v, want only those of the device with the precision", n, err)
	}
	asked := &fakeGPU{workers: func(net space.Network, n int) (int, error) {
		if net.Name != "IGC-L4M2" || n != 16 {
			t.Errorf("asked for %s in batches of %d, want the larger of two networks", net.Name, n)
		}
		return 0, errors.New("it is gone")
	}}
	if _, err := onDevices(&device{Device: asked}).Workers(t.Context(), tinyJob(t, 1).Study); err == nil {
		t.Error("no error of a device that is gone")
	}
}

// lagging hears of steps late, and fails on its own.
type lagging struct{ Engine }

func (l lagging) Train(_ context.Context, _ int, _ []int, _ []graph.Rates, done func(int, Score) error) error {
	if err := done(0, Score{1, 2}); err != nil {
		return err
	}
	return errors.New("the GPU has fallen off the bus")
}

func TestAnErrorNamesTheStep(t *testing.T) {
	d := &device{Device: &fakeGPU{places: 1, lags: true}}
	err := onDevices(d).Train(t.Context(), tinyJob(t, 1), &listener{})
	if err == nil || err.Error() != "epoch 1, step 2: the GPU has fallen off the bus" {
		t.Errorf("error %v", err)
	}
}

func TestACheckpointOfAnotherDeviceIsRefused(t *testing.T) {
	for number, name := range map[uint32]string{0: "portable", 1: "avx2", 2: "avx512", 16: "bf16", 17: "bf16-amx",
		0x08_0b_01_5a: "cuda sm_90 (ptxas 11.8)", 0x08_0b_05_5a: "cuda sm_90 (ptxas 11.8) tf32", 0x04_0c_03_4b: "cuda sm_75 (driver 12.4)",
		0x00_0d_03_78: "cuda sm_120 (driver 13.0)"} {
		if arithmeticOf(number) != name || numberOf(name) != number {
			t.Errorf("%#x is %q, %q is %#x", number, arithmeticOf(number), name, numberOf(name))
		}
	}
	for _, number := range []uint32{3, 15, 18, 0xff, 0x100, 0x15a, 0x200, 0x400, 0x402, 0x08_0b_09_5a, 0x08_0b_00_5a, 1 << 31} {
		if name := arithmeticOf(number); name != "" {
			t.Errorf("%#x is %q", number, name)
		}
	}
	job := tinyJob(t, 2)
	job.From = &search.Checkpoint{Epoch: 1, State: header("avx512", job, 1)}
	err := onDevices(newFakeGPU(sm90, 1)).Train(t.Context(), job, &listener{})
	var e ArithmeticError
	if !errors.As(err, &e) || e != (ArithmeticError{Made: "avx512", Ours: sm90}) ||
		!strings.HasSuffix(err.Error(), "after epoch 1: it was made with avx512, this run has "+sm90) {
		t.Errorf("error %v", err)
	}
}

// TestAPrecisionThatNoDeviceHasIsRefused: before anything is trained, and by the
// training itself.
func TestAPrecisionThatNoDeviceHasIsRefused(t *testing.T) {
	job := tinyJob(t, 1)
	job.Study.Precision = search.PrecisionTF32
	isa, err := ISA()
	if err != nil {
		t.Fatal(err)
	}
	for want, tr := range map[string]*Trainer{
		isa:                      New(Options{}),
		"cuda sm_70, cuda sm_75": onDevices(newFakeGPU("cuda sm_70", 1), newFakeGPU("cuda sm_75", 1), newFakeGPU("cuda sm_70", 1)),
	} {
		want = `precision "tf32" needs a GPU of compute capability 8.0 or later, this run has ` + want
		for _, err := range []error{tr.Check(job.Study), tr.Train(t.Context(), job, &listener{})} {
			if !errors.As(err, new(PrecisionError)) || err.Error() != want {
				t.Errorf("error %v, want %s", err, want)
			}
		}
		if err := tr.Check(tinyJob(t, 1).Study); err != nil {
			t.Errorf("float32: %v", err)
		}
	}
	for _, precision := range []string{search.PrecisionBF16, search.PrecisionAMX} {
		job.Study.Precision = precision
		want := fmt.Sprintf("precision %q needs the CPU, this run has cuda sm_70", precision)
		if err := onDevices(newFakeGPU("cuda sm_70", 1)).Check(job.Study); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if err := New(Options{}).Check(job.Study); err != nil {
			t.Errorf("%s on the processor: %v", precision, err)
		}
	}
}

func TestInstruction(t *testing.T) {
	for _, isa := range kernel.Available() {
		var a kernel.Arena
		defer a.Free()
		team, err := kernel.NewTeam(&a, isa, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer team.Close()
		multiplies := map[kernel.ISA]string{kernel.Portable: "portable", kernel.AVX2: "vfmadd, avx2",
			kernel.AVX512: "vfmadd, avx512"}[isa]
		want := []Multiplier{{search.PrecisionF32, multiplies, true}, {search.PrecisionBF16, "vdpbf16ps", true},
			{search.PrecisionAMX, "tdpbf16ps", true}}
		emulated := []string{multiplies, multiplies + " (vdpbf16ps emulated)", multiplies + " (tdpbf16ps emulated)"}
		for p := kernel.BF16; p <= kernel.AMX; p++ {
			if !team.Native(p) {
				want[p].Instruction, want[p].Native = emulated[p], false
			}
		}
		if got, err := Multipliers(isa); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: got %+v, %v, want %+v", isa, got, err, want)
		}
		team.Emulate(kernel.BF16)
		for p, want := range emulated {
			if got := Instruction(team, kernel.Precision(p)); got != want {
				t.Errorf("%v, emulated: got %q, want %q", isa, got, want)
			}
		}
	}
}

// TestPrecisionIsPartOfTheArithmetic: a training with another precision does not go on
// from a checkpoint.
func TestPrecisionIsPartOfTheArithmetic(t *testing.T) {
	job := tinyJob(t, 2)
	job.Study.Precision = search.PrecisionTF32
	job.From = &search.Checkpoint{Epoch: 1, State: header(sm90, job, 1)}
	gpu := newFakeGPU(sm90, 1)
	gpu.Device.(*fakeGPU).tf32 = true
	err := onDevices(gpu).Train(t.Context(), job, &listener{})
	if want := (ArithmeticError{Made: sm90, Ours: sm90 + " tf32"}); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	job.Study.Precision, job.From.State = search.PrecisionAMX, header("bf16", job, 1)
	err = New(Options{}).Train(t.Context(), job, &listener{})
	if want := (ArithmeticError{Made: "bf16", Ours: "bf16-amx"}); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
