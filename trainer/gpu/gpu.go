// Package gpu trains networks on CUDA devices. Its Model does what the engine
// of package trainer asks for: the same graph as on the processor, with its
// parameters in the memory of the GPU and its pictures drawn there.
//
// The build tag gpu brings it in. Without the tag there are no devices, so that
// whoever uses this package compiles alike in both builds.
package gpu

import (
	"errors"
	"time"

	"igcsearch/trainer/dataset"
)

// ErrMemory is wrapped by the errors for what does not fit into the memory of
// a GPU.
var ErrMemory = errors.New("the memory of the GPU is too small")

// Info describes a GPU.
type Info struct {
	Index           int    // from 0, as CUDA counts
	Name            string // "NVIDIA H200"
	Capability      string // "sm_90"
	Driver          string // version of the driver
	Memory, Free    int    // bytes; free when it was opened, 0 before
	Multiprocessors int
}

// Arithmetic names whose bits a GPU's results are: "cuda sm_90".
func (i Info) Arithmetic() string { return "cuda " + i.Capability }

// Supported reports whether the kernels run on it: from sm_70 on.
func (i Info) Supported() bool {
	return len(i.Capability) > len("sm_70") || i.Capability >= "sm_70"
}

// Options say how a model trains.
type Options struct {
	Augmentation *dataset.Augmentation // of training pictures; nil: as they are
	Seed         uint64                // of the augmentation
	Momentum     float32               // Nesterov's µ
	WeightDecay  float32               // where graph.Param.Decays

	// DecayAll, Average and Precise are those of graph.Options.
	DecayAll, Average, Precise bool
}

// Score is what an evaluation found.
type Score struct {
	Correct int
	Loss    float64 // mean cross-entropy (nats) of the pictures
}

// Bench is the training step of one network on a GPU: forward, backward and
// update.
type Bench struct {
	Step         time.Duration // of a training alone, median over groups of eight
	Launches     int           // kernels of a step
	Memory       int           // bytes of a training on the device
	Bytes        int           // of a step: what its kernels read and write of activations and weights, each once
	Trials       int           // at once, where the most pictures a second are had
	AllPerSecond float64       // pictures of all of them together
	Host         float64       // of a processor core, for each of them
	PeakFlops    float64       // a second: multiply–adds that touch no memory
	Bandwidth    float64       // bytes a second, read and written: a copy
}
