package trainer

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/kernel"
)

// device is what trainings run on: the processor or a GPU.
type device struct {
	// arithmetic is that of the device's engines; "" of the processor, which is
	// never one of several.
	arithmetic string
	// start builds a network for batches of n pictures.
	start func(net space.Network, n int, set *dataset.Set, o gpu.Options) (engine, error)
	// workers is how many trainings at once are best.
	workers func(ctx context.Context, net space.Network, n int, set *dataset.Set) (int, error)
	running int // trainings in progress; guarded by Trainer.mu
}

// devices are those that the options choose.
func devices(o Options) (list []*device) {
	for _, info := range o.GPUs {
		// At the first use: who only asks for stored results needs no GPU.
		open := sync.OnceValues(func() (*gpu.Device, error) { return gpu.Open(info.Index) })
		list = append(list, &device{
			arithmetic: info.Arithmetic(),
			start: func(net space.Network, n int, set *dataset.Set, o gpu.Options) (engine, error) {
				d, err := open()
				if err != nil {
					return nil, err
				}
				m, err := d.New(net, n, set, o)
				if err != nil {
					return nil, err
				}
				return m, nil
			},
			workers: func(ctx context.Context, net space.Network, n int, set *dataset.Set) (int, error) {
				d, err := open()
				if err != nil {
					return 0, err
				}
				return d.Workers(ctx, net, n, set)
			},
		})
	}
	if len(list) > 0 {
		return list
	}
	return []*device{{
		start: func(net space.Network, n int, set *dataset.Set, how gpu.Options) (engine, error) {
			return newCPU(net, n, max(1, o.Threads), set, how)
		},
		workers: func(context.Context, space.Network, int, *dataset.Set) (int, error) {
			return runtime.GOMAXPROCS(0), nil
		},
	}}
}

// take returns the device with the fewest trainings in progress, of those that
// can go on from the job's checkpoint if there are any. The device must be
// given back.
func (t *Trainer) take(job search.Job) *device {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.devices
	if job.From != nil {
		made, _ := madeBy(job.From.State)
		if able := slices.DeleteFunc(slices.Clone(list), func(d *device) bool { return d.arithmetic != made }); len(able) > 0 {
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

// Workers is how many trainings of a study at once the devices are fastest
// with: one for each core of the processor; of GPUs it is measured, with the
// network that has the most parameters, which can take some seconds.
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
		n, err := d.workers(ctx, largest, batch(s, set), set)
		if errors.Is(err, gpu.ErrMemory) {
			n, err = 1, nil // smaller networks may fit; the largest will say why it does not
		}
		if err != nil {
			return 0, err
		}
		sum += max(1, n)
	}
	return sum, nil
}

// noMemory is an error that search.ErrNoMemory is in, with the text it had.
type noMemory struct{ error }

func (e noMemory) Unwrap() error        { return e.error }
func (e noMemory) Is(target error) bool { return target == search.ErrNoMemory }

// memory makes a device's want of memory search.ErrNoMemory.
func memory(err error) error {
	if host := (kernel.MemoryError{}); errors.Is(err, gpu.ErrMemory) || errors.As(err, &host) {
		return noMemory{err}
	}
	return err
}
