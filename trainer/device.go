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

// Device is what trainings run on. It is safe for concurrent use. Its errors, and those
// of its engines, are search.ErrNoMemory where its memory is too small, and
// search.ErrDevice after a fault that ends all its engines.
type Device interface {
	// Arithmetic is that of the device's engines, for a recipe without a Precision.
	Arithmetic() string
	// Has reports whether the device has what a Recipe.Precision needs.
	Has(precision string) bool
	// Start builds a network for batches of n pictures of a set.
	Start(net space.Network, n int, set *dataset.Set, r Recipe) (Engine, error)
	// Workers is how many trainings at once are fastest.
	Workers(ctx context.Context, net space.Network, n int, set *dataset.Set) (int, error)
	// Reset gives up what is left of the device after a fault, once all its engines are
	// closed. Start and Workers then open it anew.
	Reset()
}

// processor is the Device of the CPU.
type processor struct{ threads int }

func (p processor) Arithmetic() string {
	isa, _ := ISA() // Start returns the error
	return isa
}

func (p processor) Has(precision string) bool {
	return precision == "" || search.Bfloat16(precision)
}

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

func (p processor) Reset() {}

// ISA returns the instruction set of the kernels: "avx512", "avx2" or
// "portable". IGC_ISA forces one; it is an error if this machine lacks it.
func ISA() (string, error) {
	isa, err := kernel.Detect()
	if err != nil {
		return "", err
	}
	return isa.String(), nil
}

// Multiplier is what multiplies on the processor in a precision.
type Multiplier struct {
	Precision   string `json:"precision"`   // of a search.Recipe, with search.PrecisionF32 for float32
	Instruction string `json:"instruction"` // see Instruction
	Native      bool   `json:"native"`      // see kernel.Team.Native
}

// Multipliers lists those of all precisions of the processor, with the kernels of an
// instruction set.
func Multipliers(isa kernel.ISA) (list []Multiplier, err error) {
	var a kernel.Arena
	defer a.Free()
	team, err := kernel.NewTeam(&a, isa, 1, 0)
	if err != nil {
		return nil, err
	}
	defer team.Close()
	for p := kernel.F32; p <= kernel.AMX; p++ {
		list = append(list, Multiplier{p.String(), Instruction(team, p), team.Native(p)})
	}
	return list, nil
}

// Instruction says what multiplies when a team computes in a precision, like
// "vfmadd, avx512" or "vdpbf16ps".
func Instruction(t *kernel.Team, p kernel.Precision) string {
	own := [...]string{kernel.BF16: "vdpbf16ps", kernel.AMX: "tdpbf16ps"}[p]
	if own != "" && t.Native(p) {
		return own
	}
	name := t.ISA().String() // whose compiler chooses, if it is portable
	if t.ISA() != kernel.Portable {
		name = "vfmadd, " + name
	}
	if own != "" {
		name += fmt.Sprintf(" (%s emulated)", own)
	}
	return name
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

// device is a Device of a Trainer. It is used until it has failed twice: after the first
// fault it is opened anew. Trainer.mu guards its fields.
type device struct {
	Device
	running int   // trainings in progress
	faults  int   // how often it failed
	fault   error // the last one
	ending  bool  // it failed, and its trainings have not all ended
}

// mostFaults is how often a device may fail and is used again.
const mostFaults = 1

// lost reports whether a device is not used any more.
func (d *device) lost() bool { return d.faults > mostFaults }

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
	needs := "a GPU of compute capability 8.0 or later"
	if search.Bfloat16(e.Precision) {
		needs = "the CPU"
	}
	return fmt.Sprintf("precision %q needs %s, this run has %s", e.Precision, needs, e.Devices)
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

// take returns the device with the fewest trainings in progress, of those the one with
// the fewest faults, if possible one that can continue from the job's checkpoint. It has
// what the study's precision needs, which Check has found. The device must be given back.
// It waits for a device that is opened anew if there is no other. If all that could
// continue are lost, the error is search.ErrNoDevice: on others the trial would fail.
func (t *Trainer) take(ctx context.Context, job search.Job) (*device, error) {
	made := ""
	if job.From != nil {
		made, _ = madeBy(job.From.State)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		useless := func(d *device) bool { return d.lost() || !d.Has(job.Study.Precision) }
		list := slices.DeleteFunc(slices.Clone(t.devices), useless)
		if len(list) == 0 {
			return nil, t.noDevice()
		}
		other := func(d *device) bool { return job.Study.Arithmetic(d.Arithmetic()) != made }
		if able := slices.DeleteFunc(slices.Clone(list), other); len(able) > 0 {
			list = able
		} else if slices.ContainsFunc(t.devices, func(d *device) bool { return d.lost() && !other(d) }) {
			return nil, fmt.Errorf("%v seed %d after epoch %d needs %s: %w", job.System.Label(), job.Seed, job.From.Epoch,
				made, t.noDevice())
		}
		list = slices.DeleteFunc(list, func(d *device) bool { return d.ending })
		if len(list) > 0 {
			d := slices.MinFunc(list, func(a, b *device) int {
				return cmp.Or(cmp.Compare(a.running, b.running), cmp.Compare(a.faults, b.faults))
			})
			d.running++
			return d, nil
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		t.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// noDevice is the error when all devices are lost. The caller holds t.mu.
func (t *Trainer) noDevice() error {
	var why []string
	for _, d := range t.devices {
		if d.lost() { // and not one without what the precision needs
			why = append(why, d.fault.Error())
		}
	}
	return fmt.Errorf("%w: %s", search.ErrNoDevice, strings.Join(why, "; "))
}

// giveBack ends a use of a device that ended with err. It returns what the user must
// know: after a fault, also what becomes of the device.
func (t *Trainer) giveBack(d *device, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(err, search.ErrDevice) {
		if !d.ending {
			d.ending, d.fault = true, err
			d.faults++
		}
		after := "the device is opened anew"
		if d.lost() {
			after = "it is the second time, so nothing more is trained on this device"
		}
		err = fmt.Errorf("%w: %s", err, after)
	}
	d.running--
	if d.ending && d.running == 0 {
		t.mu.Unlock()
		d.Reset() // which can take a second
		t.mu.Lock()
		d.ending = false
		close(t.changed)
		t.changed = make(chan struct{})
	}
	return err
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
	able, err := t.able(s)
	if err != nil {
		return 0, err
	}
	sum := 0
	for _, d := range able {
		n, err := t.workersOn(ctx, d, largest, batch(s, set), set)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if sum == 0 {
		return 0, t.noDevice()
	}
	return sum, nil
}

// workersOn is how many trainings at once are fastest on a device, at least one. It is
// none on a device that is lost.
func (t *Trainer) workersOn(ctx context.Context, d *device, net space.Network, n int, set *dataset.Set) (int, error) {
	for {
		t.mu.Lock()
		if d.lost() {
			t.mu.Unlock()
			return 0, nil
		}
		d.running++
		t.mu.Unlock()
		workers, err := d.Workers(ctx, net, n, set)
		err = t.giveBack(d, err)
		switch {
		case errors.Is(err, search.ErrDevice):
		case errors.Is(err, search.ErrNoMemory):
			return 1, nil // smaller networks may fit; the training of this one returns the error
		case err != nil:
			return 0, err
		default:
			return max(1, workers), nil
		}
	}
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
