// Package gpu trains networks on CUDA devices. Its Model is an Engine of package
// trainer: the same network as on the processor, with the parameters and the
// pictures in the memory of the GPU.
//
// The build tag gpu includes it. Without the tag there are no devices, and the
// users of this package compile in the same way.
package gpu

import (
	"context"
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

// On returns GPUs as devices of a Trainer. Each is opened at its first use: a
// command that only reads stored results needs no GPU.
func On(gpus []Info) (list []trainer.Device) {
	for _, info := range gpus {
		list = append(list, lazy{info, sync.OnceValues(func() (*Device, error) { return Open(info.Index) })})
	}
	return list
}

// lazy is a GPU that is opened at its first use.
type lazy struct {
	info Info
	open func() (*Device, error)
}

func (l lazy) Arithmetic() string { return l.info.Arithmetic() }

func (l lazy) Start(net space.Network, n int, set *dataset.Set, r trainer.Recipe) (trainer.Engine, error) {
	d, err := l.open()
	if err != nil {
		return nil, err
	}
	return d.Start(net, n, set, r)
}

func (l lazy) Workers(ctx context.Context, net space.Network, n int, set *dataset.Set) (int, error) {
	d, err := l.open()
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
	Driver          string // version of the driver
	Memory, Free    int    // bytes; Free when it was opened, 0 before
	Multiprocessors int
}

// Arithmetic is that of the GPU's kernels, as in trainer.Engine: "cuda sm_90".
func (i Info) Arithmetic() string { return "cuda " + i.Capability }

// Supported reports whether the kernels run on it: from sm_70 on.
func (i Info) Supported() bool {
	return len(i.Capability) > len("sm_70") || i.Capability >= "sm_70"
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
