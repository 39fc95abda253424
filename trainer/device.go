package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/kernel"
)

// Device is what trainings run on. It is safe for concurrent use. Its errors are
// search.ErrNoMemory where its memory is too small.
type Device interface {
	// Arithmetic is that of the device's engines, for a recipe without a Precision.
	Arithmetic() string
	// Has reports whether the device has what a Recipe.Precision needs.
	Has(precision string) bool
	// Start builds a network for batches of n pictures of a set.
	Start(net space.Network, n int, set *dataset.Set, r Recipe) (Engine, error)
	// Workers is how many trainings at once are fastest.
	Workers(ctx context.Context, net space.Network, n int, set *dataset.Set) (int, error)
}

// processor is the Device of the CPU.
type processor struct{ threads int }

func (p processor) Arithmetic() string {
	isa, _ := ISA() // Start returns the error
	return isa
}

func (p processor) Has(precision string) bool { return precision == "" }

func (p processor) Start(net space.Network, n int, set *dataset.Set, r Recipe) (Engine, error) {
	c, err := newCPU(net, n, p.threads, set, r)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (p processor) Workers(context.Context, space.Network, int, *dataset.Set) (int, error) {
	return runtime.GOMAXPROCS(0), nil
}

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
// system does not say.
func CPU() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// device is a Device of a Trainer.
type device struct {
	Device
	running int // trainings in progress; guarded by Trainer.mu
}

// devices are those that the options choose.
func devices(o Options) (list []*device) {
	for _, d := range o.Devices {
		list = append(list, &device{Device: d})
	}
	if len(list) == 0 {
		list = append(list, &device{Device: processor{max(1, o.Threads)}})
	}
	return list
}

// PrecisionError says that no device of a run has what a study's precision needs.
type PrecisionError struct {
	Precision string
	Devices   string // what they have, as Device.Arithmetic, separated by ", "
}

func (e PrecisionError) Error() string {
	return fmt.Sprintf("precision %q needs a GPU of compute capability 8.0 or later, this run has %s", e.Precision,
		e.Devices)
}

// Check returns a PrecisionError if no device can train by the recipe of a study.
func (t *Trainer) Check(s search.Study) error {
	_, err := t.able(s)
	return err
}

// able returns the devices that can train by the recipe of a study.
func (t *Trainer) able(s search.Study) (list []*device, err error) {
	var others []string
	for _, d := range t.devices {
		switch name := d.Arithmetic(); {
		case d.Has(s.Precision):
			list = append(list, d)
		case !slices.Contains(others, name):
			others = append(others, name)
		}
	}
	if len(list) == 0 {
		return nil, PrecisionError{s.Precision, strings.Join(others, ", ")}
	}
	return list, nil
}

// take returns the device with the fewest trainings in progress that can train the
// study, which Check has found, if possible one that can continue from the job's
// checkpoint. The device must be given back.
func (t *Trainer) take(job search.Job) *device {
	list, _ := t.able(job.Study)
	t.mu.Lock()
	defer t.mu.Unlock()
	if job.From != nil {
		made, _ := madeBy(job.From.State)
		other := func(d *device) bool { return job.Study.Arithmetic(d.Arithmetic()) != made }
		if able := slices.DeleteFunc(slices.Clone(list), other); len(able) > 0 {
			list = able
		}
	}
	d := slices.MinFunc(list, func(a, b *device) int { return cmp.Compare(a.running, b.running) })
	d.running++
	return d
}

func (t *Trainer) giveBack(d *device) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d.running--
}

// Workers is how many trainings of a study at once are fastest on the devices:
// one for each core of the processor. On GPUs it is measured with the network that
// has the most parameters, which can take some seconds.
func (t *Trainer) Workers(ctx context.Context, s search.Study) (int, error) {
	set, err := t.set(ctx, s)
	if err != nil {
		return 0, err
	}
	var largest space.Network
	for _, system := range s.SystemList() {
		net, err := network(s, system, set)
		if err != nil {
			return 0, err
		}
		if largest.Layers == nil || net.Params() > largest.Params() {
			largest = net
		}
	}
	sum := 0
	for _, d := range t.devices {
		n, err := d.Workers(ctx, largest, batch(s, set), set)
		if errors.Is(err, search.ErrNoMemory) {
			n, err = 1, nil // smaller networks may fit; the training of this one returns the error
		}
		if err != nil {
			return 0, err
		}
		sum += max(1, n)
	}
	return sum, nil
}

// noMemory is an error with its own text that is also search.ErrNoMemory.
type noMemory struct{ error }

func (e noMemory) Unwrap() error        { return e.error }
func (e noMemory) Is(target error) bool { return target == search.ErrNoMemory }

// memory makes search.ErrNoMemory of the system's lack of memory.
func memory(err error) error {
	if errors.As(err, new(kernel.MemoryError)) {
		return noMemory{err}
	}
	return err
}
