package trainer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sourcegraph/conc/panics"
	"github.com/sourcegraph/conc/pool"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Cost is what one network of a study takes on this machine, where as many train
// at once as Costs was told.
type Cost struct {
	System space.System
	// Epoch are the seconds of the training steps of one epoch, with their input.
	Epoch float64
	// Evaluation are the seconds of one evaluation: of the validation and test
	// pictures, and of those that precise statistics are measured on.
	Evaluation float64
	// StateBytes of a checkpoint.
	StateBytes int
}

// Of a measurement: so many steps at most, which are more than a GPU's first
// groups of steps, and so many operations a second as a slow core has.
const (
	costSteps = 32
	slowCore  = 20e9
)

// Costs measures networks of a study, workers of them at once, as a run trains
// them, for about so long in all: a few steps of each on the study's pictures, after
// one that is not counted, and an evaluation. A network that would take longer on
// the processor is measured on smaller batches.
func (t *Trainer) Costs(ctx context.Context, s search.Study, systems []space.System, workers int, limit time.Duration) ([]Cost, error) {
	set, err := t.set(ctx, s)
	if err != nil {
		return nil, err
	}
	// The same network trains several times at once if there are few.
	n := max(len(systems), workers)
	share := limit * time.Duration(workers) / time.Duration(n)
	costs := make([]Cost, n)
	p := pool.New().WithMaxGoroutines(max(1, workers)).WithContext(ctx).WithCancelOnError().WithFirstError()
	for i := range n {
		p.Go(func(ctx context.Context) (err error) {
			if r := panics.Try(func() { costs[i], err = t.cost(ctx, s, systems[i%len(systems)], set, share) }); r != nil {
				return fmt.Errorf("panic: %v", r.Value) // no reason to end a run, which would store it as a failure
			}
			return memory(err)
		})
	}
	return costs[:len(systems)], p.Wait()
}

// errMeasured ends a training that has been measured.
var errMeasured = errors.New("enough steps are measured")

// cost measures one network.
func (t *Trainer) cost(ctx context.Context, s search.Study, system space.System, set *dataset.Set, share time.Duration) (c Cost, err error) {
	c.System = system
	began := time.Now()
	whole := batch(s, set)
	net, err := network(s, system, set)
	if err != nil {
		return c, err
	}
	_, cpu := t.devices[0].Device.(processor)
	if cpu {
		// The least that is done for a picture: two steps of six operations for each
		// multiply–add, and two evaluations of two.
		const operations = 2*6 + 2*2
		fit := int(share.Seconds() * slowCore / (operations * float64(net.MultiplyAdds())))
		s.Batch = min(s.Batch, max(kernel.Lanes, fit/kernel.Lanes*kernel.Lanes))
	}
	tr, err := t.start(ctx, search.Job{Study: s, Key: search.Key{System: system}})
	if err != nil {
		return c, err
	}
	defer tr.end()

	order := tr.order(1)
	steps := min(costSteps, tr.steps)
	last := time.Now() // what came before built the network
	var times []time.Duration
	err = tr.Train(ctx, 1, order[:steps*tr.batch], make([]graph.Rates, steps), func(step int, _ Score) error {
		now := time.Now()
		times = append(times, now.Sub(last))
		last = now
		if used := now.Sub(began); used > share || step > 0 && used > share/2 {
			return errMeasured
		}
		return nil
	})
	if err != nil && !errors.Is(err, errMeasured) {
		return c, err
	}
	if len(times) > 1 { // the first one meets cold memory, and a device that starts
		times = times[1:]
	}
	perPicture := typical(times, !cpu).Seconds() / float64(tr.batch)
	c.Epoch = perPicture * float64(set.Train.Len()/whole*whole)

	if s.BNStatistics == search.BNPrecise {
		if err := tr.Measure(ctx, order[:tr.batch]); err != nil {
			return c, err
		}
	}
	some := set.Test // a GPU may show others in their place, which takes as long
	some.Labels = some.Labels[:min(tr.batch, some.Len())]
	for times = times[:0]; len(times) == 0 || len(times) < costSteps && last.Sub(began) < share; {
		begin := time.Now()
		if _, err := tr.Evaluate(ctx, &some); err != nil {
			return c, err
		}
		last = time.Now()
		times = append(times, last.Sub(begin))
	}
	if len(times) > 1 {
		times = times[1:]
	}
	evaluation := typical(times, !cpu)
	pictures := set.Validation.Len() + set.Test.Len()
	if s.BNStatistics == search.BNPrecise {
		pictures += len(tr.measured())
	}
	c.Evaluation = evaluation.Seconds() / float64(some.Len()) * float64(pictures)

	state, err := state(tr, tr.job, 1)
	c.StateBytes = len(state)
	return c, err
}

// typical is the median, which what else the machine does hardly changes. A GPU's
// steps are heard of in groups: their mean.
func typical(times []time.Duration, grouped bool) time.Duration {
	if grouped {
		sum := time.Duration(0)
		for _, t := range times {
			sum += t
		}
		return sum / time.Duration(len(times))
	}
	slices.Sort(times)
	return (times[len(times)/2] + times[(len(times)-1)/2]) / 2
}
