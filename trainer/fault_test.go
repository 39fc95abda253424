package trainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
)

// faultyGPU is a GPU that fails: when it has trained the next number of steps in
// failsAfter. Then everything fails on it until Reset.
type faultyGPU struct {
	*fakeGPU
	t          *testing.T
	name       string
	mu         sync.Mutex
	failsAfter []int
	broken     bool
	resets     int
}

func newFaultyGPU(t *testing.T, name string, failsAfter ...int) *faultyGPU {
	return &faultyGPU{fakeGPU: &fakeGPU{arithmetic: sm90, places: 9}, t: t, name: name, failsAfter: failsAfter}
}

// use is called at each step, and with false elsewhere.
func (d *faultyGPU) use(step bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if step && len(d.failsAfter) > 0 && !d.broken {
		if d.failsAfter[0]--; d.failsAfter[0] < 0 {
			d.failsAfter, d.broken = d.failsAfter[1:], true
		}
	}
	if d.broken {
		return fmt.Errorf("%s: %w", d.name, search.ErrDevice)
	}
	return nil
}

func (d *faultyGPU) Start(net space.Network, n int, set *dataset.Set, r Recipe) (Engine, error) {
	if err := d.use(false); err != nil {
		return nil, err
	}
	e, err := d.fakeGPU.Start(net, n, set, r)
	if err != nil {
		return nil, err
	}
	return faultyEngine{e, d}, nil
}

func (d *faultyGPU) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.taken.Load(); n != 0 || !d.broken {
		d.t.Errorf("%s is reset with %d engines, broken: %v", d.name, n, d.broken)
	}
	d.broken = false
	d.resets++
}

type faultyEngine struct {
	Engine
	d *faultyGPU
}

func (e faultyEngine) Train(ctx context.Context, epoch int, order []int, rates []graph.Rates,
	done func(int, Score) error) error {
	return e.Engine.Train(ctx, epoch, order, rates, func(step int, s Score) error {
		if err := e.d.use(true); err != nil {
			return err
		}
		return done(step, s)
	})
}

// insist trains a job again and again from its last epoch until its device does not
// fail. It returns the errors in between.
func insist(ctx context.Context, tr *Trainer, job search.Job) (l listener, lost []string, err error) {
	for {
		err := tr.Train(ctx, job, &l)
		if !errors.Is(err, search.ErrDevice) {
			return l, lost, err
		}
		lost = append(lost, err.Error())
		if n := len(l.checkpoints); n > 0 {
			job.From = &l.checkpoints[n-1]
		}
	}
}

func onFaulty(list ...*faultyGPU) *Trainer {
	var all []*device
	for _, d := range list {
		all = append(all, &device{Device: d})
	}
	return onDevices(all...)
}

func TestAFaultyDeviceIsOpenedAnewOnce(t *testing.T) {
	const again = ": the device failed: the device is opened anew"
	const never = ": the device failed: it is the second time, so nothing more is trained on this device"
	job := tinyJob(t, 3) // of 2 steps each
	want, _, err := insist(t.Context(), onFaulty(newFaultyGPU(t, "cuda:0")), job)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		devices []*faultyGPU
		lost    []string // without the epoch and the step
		resets  []int
	}{
		{"one fault", []*faultyGPU{newFaultyGPU(t, "cuda:0", 3)}, []string{"cuda:0" + again}, []int{1}},
		{"two, then another device", []*faultyGPU{newFaultyGPU(t, "cuda:0", 1, 1), newFaultyGPU(t, "cuda:1")},
			[]string{"cuda:0" + again, "cuda:0" + never}, []int{2, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := onFaulty(c.devices...)
			for _, d := range tr.devices[1:] {
				d.running++ // so that the first one is taken as long as it is used
			}
			got, lost, err := insist(t.Context(), tr, job)
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range lost {
				if i >= len(c.lost) || !strings.HasSuffix(text, c.lost[i]) {
					t.Errorf("lost with %q, want %q", text, c.lost)
				}
			}
			if len(lost) != len(c.lost) {
				t.Errorf("lost %d times, want %d", len(lost), len(c.lost))
			}
			if len(got.checkpoints) != 3 || !bytes.Equal(got.checkpoints[2].State, want.checkpoints[2].State) {
				t.Errorf("after the fault the training ends with other bits")
			}
			for i, d := range c.devices {
				if running := tr.devices[i].running; d.resets != c.resets[i] || running != min(i, 1) {
					t.Errorf("%s: %d resets, want %d; %d trainings", d.name, d.resets, c.resets[i], running)
				}
			}
		})
	}
}

// Trainings at once on two devices, of which one fails twice: each ends with the bits of
// a training that nothing happened to, and the device is reset only when all of its
// trainings have ended.
func TestAFaultyDeviceTakesItsTrainingsAlongOnly(t *testing.T) {
	faulty, sound := newFaultyGPU(t, "cuda:0", 5, 7), newFaultyGPU(t, "cuda:1")
	tr := onFaulty(faulty, sound)
	reference := onFaulty(newFaultyGPU(t, "cuda:9"))
	var wg sync.WaitGroup
	for seed := range 6 {
		job := tinyJob(t, 3)
		job.Seed = seed
		wg.Go(func() {
			got, _, err := insist(t.Context(), tr, job)
			if err != nil {
				t.Error(err)
				return
			}
			want, _, err := insist(t.Context(), reference, job)
			if err != nil {
				t.Error(err)
				return
			}
			if len(got.checkpoints) != 3 || !bytes.Equal(got.checkpoints[2].State, want.checkpoints[2].State) {
				t.Errorf("seed %d ends with other bits", seed)
			}
		})
	}
	wg.Wait()
	if faulty.resets > 2 || faulty.resets < 1 || sound.resets != 0 {
		t.Errorf("%d and %d resets", faulty.resets, sound.resets)
	}
}

func TestWithoutADeviceTheErrorSaysWhatHappenedToEach(t *testing.T) {
	tr := onFaulty(newFaultyGPU(t, "cuda:0", 0, 0), newFaultyGPU(t, "cuda:1", 0, 0))
	var err error
	for seed := range 4 { // each meets one fault
		job := tinyJob(t, 1)
		job.Seed = seed
		if err = tr.Train(t.Context(), job, &listener{}); !errors.Is(err, search.ErrDevice) {
			t.Fatalf("error %v", err)
		}
	}
	job := tinyJob(t, 1)
	job.Seed = 4
	err = tr.Train(t.Context(), job, &listener{})
	const want = "no device is left to train on: epoch 1, step 1: cuda:0: the device failed; " +
		"epoch 1, step 1: cuda:1: the device failed"
	if !errors.Is(err, search.ErrNoDevice) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, err := tr.Workers(t.Context(), job.Study); !errors.Is(err, search.ErrNoDevice) {
		t.Errorf("workers: error %v", err)
	}
}

// A device of another kind cannot continue what a lost one began: the trial does not fail
// by that.
func TestATrialOfALostDeviceDoesNotFailOnAnotherKind(t *testing.T) {
	faulty, other := newFaultyGPU(t, "cuda:0", 3, 1), newFaultyGPU(t, "cuda:1")
	other.arithmetic = sm80
	tr := onFaulty(faulty, other)
	tr.devices[1].running++ // so that the first one is taken as long as it is used
	l, lost, err := insist(t.Context(), tr, tinyJob(t, 3))
	const want = "L4M2 seed 0 after epoch 1 needs " + sm90 +
		": no device is left to train on: epoch 2, step 2: cuda:0: the device failed"
	if len(l.checkpoints) != 1 || len(lost) != 2 || !errors.Is(err, search.ErrNoDevice) || err.Error() != want {
		t.Errorf("%d epochs, lost %q, error %v, want %s", len(l.checkpoints), lost, err, want)
	}
	job := tinyJob(t, 1)
	job.Seed = 1 // which has not begun
	if err := tr.Train(t.Context(), job, &listener{}); err != nil {
		t.Error(err)
	}
}

// One network could otherwise take all devices away.
func TestATrialUnderWhichDevicesFailIsTheCause(t *testing.T) {
	tr := onFaulty(newFaultyGPU(t, "cuda:0", 0), newFaultyGPU(t, "cuda:1", 0), newFaultyGPU(t, "cuda:2", 0))
	_, lost, err := insist(t.Context(), tr, tinyJob(t, 1))
	if len(lost) != 2 || err == nil || errors.Is(err, search.ErrDevice) ||
		!strings.HasPrefix(err.Error(), "devices failed 3 times under this trial, so it may be the cause: ") {
		t.Errorf("lost %q, error %v", lost, err)
	}
	for _, d := range tr.devices {
		if d.faults != 1 {
			t.Errorf("%d faults, want one of each device", d.faults)
		}
	}
}

// A device that failed is not used before its last training has ended, and a training
// that waits for it stops when it is told to.
func TestATrainingWaitsForItsDeviceToBeOpenedAnew(t *testing.T) {
	faulty := newFaultyGPU(t, "cuda:0", 0)
	tr := onFaulty(faulty)
	beside, err := tr.take(t.Context(), search.Job{})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Train(t.Context(), tinyJob(t, 1), &listener{}); !errors.Is(err, search.ErrDevice) || faulty.resets != 0 {
		t.Fatalf("error %v, %d resets", err, faulty.resets)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Train(ctx, tinyJob(t, 1), &listener{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	done := make(chan error)
	go func() { done <- tr.Train(t.Context(), tinyJob(t, 1), &listener{}) }()
	if err := tr.giveBack(beside, fmt.Errorf("cuda:0: %w", search.ErrDevice)); !errors.Is(err, search.ErrDevice) {
		t.Errorf("error %v", err)
	}
	if err := <-done; err != nil || faulty.resets != 1 {
		t.Errorf("error %v, %d resets", err, faulty.resets)
	}
}
