package bench

import (
	"context"

	"igcsearch/trainer/gpu"
)

// GPUResult is the training step of one network on a GPU.
type GPUResult struct {
	gpu.Bench
	Params int     // of the network
	Flops  float64 // of a step: 6 operations for each multiply–add and picture
	Batch  int
}

// AlonePerSecond is the pictures a second of a training alone.
func (r GPUResult) AlonePerSecond() float64 { return float64(r.Batch) / r.Step.Seconds() }

// limits are the least seconds that the operations and the bytes of a step take.
func (r GPUResult) limits() (arithmetic, memory float64) {
	return r.Flops / r.PeakFlops, float64(r.Bench.Bytes) / r.Bandwidth
}

// Bound says what limits a step, as in Result.
func (r GPUResult) Bound() string {
	if arithmetic, memory := r.limits(); arithmetic < memory {
		return "memory"
	}
	return "arithmetic"
}

// Share is how much of that limit all trials together reach.
func (r GPUResult) Share() float64 {
	arithmetic, memory := r.limits()
	return r.AllPerSecond / float64(r.Batch) * max(arithmetic, memory)
}

// benchSteps is how many batches of pictures a GPU is measured with, so many that steps
// can be started until the driver's queue is full.
const benchSteps = 128

// GPU measures the training step of a network on a GPU, alone and beside as many
// others as give the most pictures a second. Once it knows the step alone it calls
// alone, if that is not nil. With an error it returns what it had measured.
func GPU(ctx context.Context, o Options, d *gpu.Device, alone func(GPUResult)) (r GPUResult, err error) {
	if err := o.Check(false); err != nil {
		return r, err
	}
	net, err := o.System.Network(o.plan())
	if err != nil {
		return r, err
	}
	set, _ := benchSet(benchSteps*o.Batch, net.Input())
	for range net.Classes {
		set.Classes = append(set.Classes, "")
	}
	r.Params, r.Batch, r.Flops = net.Params(), o.Batch, 6*float64(net.MultiplyAdds())*float64(o.Batch)
	r.Bench, err = d.Bench(ctx, net, o.Batch, o.Steps, set, func(b gpu.Bench) {
		if r.Bench = b; alone != nil {
			alone(r)
		}
	})
	return r, err
}
