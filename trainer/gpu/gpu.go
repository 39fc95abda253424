// Package gpu trains networks on CUDA devices. Its Model is an Engine of package
// trainer: the same network as on the processor, with the parameters and the
// pictures in the memory of the GPU.
//
// The build tag gpu includes it. Without the tag there are no devices, and the
// users of this package compile in the same way.
package gpu

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// ErrMemory is wrapped by an error that says what does not fit into the memory of
// a GPU. It is search.ErrNoMemory.
var ErrMemory error = errMemory{}

type errMemory struct{}

func (errMemory) Error() string        { return "the memory of the GPU is too small" }
func (errMemory) Is(target error) bool { return target == search.ErrNoMemory }

// faultError says that a GPU can no longer be used as it is. It is search.ErrDevice.
type faultError struct{ gpu, what string }

func (e faultError) Error() string        { return fmt.Sprintf("%s failed: %s", e.gpu, e.what) }
func (e faultError) Is(target error) bool { return target == search.ErrDevice }

// On returns GPUs as devices of a Trainer. Each is opened at its first use: a
// command that only reads stored results needs no GPU.
func On(gpus []Info) (list []trainer.Device) {
	for _, info := range gpus {
		list = append(list, &lazy{info: info})
	}
	return list
}

// lazy is a GPU that is opened at its first use, and at the first one after Reset. If it
// cannot be opened it has failed, whatever the driver says of it, unless it lacks memory
// or is not Supported.
type lazy struct {
	info Info
	mu   sync.Mutex
	open *Device // nil: it is not
}

func (l *lazy) device() (*Device, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		d, err := Open(l.info.Index)
		switch {
		case errors.Is(err, search.ErrDevice) || errors.Is(err, search.ErrNoMemory) || err != nil && !l.info.Supported():
			return nil, err
		case err != nil:
			return nil, faultError{l.info.String(), err.Error()}
		}
		l.open = d
	}
	return l.open, nil
}

func (l *lazy) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		l.open.Close()
		l.open = nil
	}
}

func (l *lazy) Arithmetic() string { return l.info.Arithmetic() }

func (l *lazy) Has(precision string) bool { return l.info.Has(precision) }

func (l *lazy) Start(net space.Network, n int, set *dataset.Set, r trainer.Recipe) (trainer.Engine, error) {
	d, err := l.device()
	if err != nil {
		return nil, err
	}
	return d.Start(net, n, set, r)
}

func (l *lazy) Workers(ctx context.Context, net space.Network, n int, set *dataset.Set) (int, error) {
	d, err := l.device()
	if err != nil {
		return 0, err
	}
	return d.Workers(ctx, net, n, set)
}

// Info describes a GPU.
type Info struct {
	Index           int    // from 0, as CUDA counts
	Name            string // "NVIDIA H200"
	Capability      string // "sm_90"
	Driver          string // what the driver can do: "CUDA 12.4"
	Memory, Free    int    // bytes; Free when it was opened, 0 before
	Multiprocessors int
}

// String is how --device names it and what it is: "cuda:0 (NVIDIA H200)".
func (i Info) String() string { return fmt.Sprintf("cuda:%d (%s)", i.Index, i.Name) }

// Arithmetic is that of the GPU's kernels, as in trainer.Engine. It says what made
// their machine code: "cuda sm_90 (ptxas 11.8)" for code that is part of this
// program, or "cuda sm_75 (driver 12.4)" for what the driver makes of PTX.
func (i Info) Arithmetic() string {
	if m := i.machine(); m != "" {
		return fmt.Sprintf("cuda %s (ptxas %s)", m, strings.TrimSpace(ptxas))
	}
	return fmt.Sprintf("cuda %s (driver %s)", i.Capability, strings.TrimPrefix(i.Driver, "CUDA "))
}

// Supported reports whether the kernels run on it: from sm_70 on.
func (i Info) Supported() bool { return i.capability() >= 70 }

// machines are the devices whose machine code is part of this program.
var machines = []string{"sm_80", "sm_90"}

// ptxas is the version of the assembler that made it.
//
//go:embed kernels/cubin/PTXAS
var ptxas string

// machine is the device whose machine code this one runs, "" if there is none: code
// runs on devices with the same major number and the same or a larger minor one.
func (i Info) machine() string {
	mine := i.capability()
	for _, name := range slices.Backward(machines) {
		if m := (Info{Capability: name}).capability(); m/10 == mine/10 && m <= mine {
			return name
		}
	}
	return ""
}

// capability is 90 for sm_90.
func (i Info) capability() (n int) {
	fmt.Sscanf(i.Capability, "sm_%d", &n)
	return n
}

// Has reports whether it has what a trainer.Recipe.Precision needs: of
// search.PrecisionTF32 matrix units, from sm_80 on.
func (i Info) Has(precision string) bool {
	return precision == "" || precision == search.PrecisionTF32 && i.capability() >= 80
}

// Bench is the training step of one network on a GPU: forward, backward and
// update.
type Bench struct {
	Step     time.Duration // of a training alone, median over groups of eight
	Launches int           // kernels of a step
	Memory   int           // bytes of a training on the device
	Bytes    int           // that the kernels of a step read and write, each tensor once for a kernel

	// What the host needs to start each of up to 128 steps if it waits for none. As many
	// as Queue are started before one takes much longer, because the driver's queue is
	// full; Launch is the median of these.
	Starts []time.Duration
	Queue  int
	Launch time.Duration

	Trials       int     // how many at once give the most pictures a second
	AllPerSecond float64 // pictures of all of them together
	Host         float64 // processor cores that each of them uses
	PeakFlops    float64 // operations a second of multiply–adds that use no memory
	Bandwidth    float64 // bytes a second that a copy reads and writes
}
