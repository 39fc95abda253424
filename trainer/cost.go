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

// Cost is how long one network of a study trains on this machine, while as many
// others train as Costs was told.
type Cost struct {
	System space.System
	// Epoch is the time of the training steps of one epoch, with their input, in
	// seconds.
	Epoch float64
	// Evaluation is the time of one evaluation, in seconds: of the validation and
	// test pictures, and of the pictures for the precise statistics.
	Evaluation float64
	// StateBytes is the size of a checkpoint.
	StateBytes int
}

const (
	costSteps = 32   // steps of a measurement at most: more than a GPU's first groups of steps
	slowCore  = 20e9 // operations a second of a slow core
)

// Costs measures networks of a study, with so many workers at once, as a run
// trains them. It takes about the given time in all: a few steps of each network
// on the study's pictures, after one that is not counted, and an evaluation. A
// network that would take longer on the processor is measured on smaller batches.
func (t *Trainer) Costs(ctx context.Context, s search.Study, systems []space.System, workers int,
	limit time.Duration) ([]Cost, error) {
	set, err := t.set(ctx, s)
	if err != nil {
		return nil, err
	}
	// If there are fewer networks than workers, some train several times at once.
	n := max(len(systems), workers)
	share := limit * time.Duration(workers) / time.Duration(n)
	costs := make([]Cost, n)
	p := pool.New().WithMaxGoroutines(max(1, workers)).WithContext(ctx).WithCancelOnError().WithFirstError()
	for i := range n {
		p.Go(func(ctx context.Context) (err error) {
			measure := func() { costs[i], err = t.cost(ctx, s, systems[i%len(systems)], set, share) }
			if r := panics.Try(measure); r != nil {
				// It must not end the run, which stores it as a failure later.
				return fmt.Errorf("panic: %v", r.Value)
			}
			return memory(err)
		})
	}
	return costs[:len(systems)], p.Wait()
}

// errMeasured ends a training that has been measured.
var errMeasured = errors.New("enough steps are measured")

// cost measures one network.
func (t *Trainer) cost(ctx context.Context, s search.Study, system space.System, set *dataset.Set,
	share time.Duration) (c Cost, err error) {
	c.System = system
	began := time.Now()
	whole := batch(s, set)
	net, err := network(s, system, set)
	if err != nil {
		return c, err
	}
	_, cpu := t.devices[0].Device.(processor)
	if cpu {
		// Each picture costs at least two steps of six operations for each
		// multiply–add, and two evaluations of two operations.
		const operations = 2*6 + 2*2
		fit := int(share.Seconds() * slowCore / (operations * float64(net.MultiplyAdds())))
		s.Batch = min(s.Batch, max(kernel.Lanes, fit/kernel.Lanes*kernel.Lanes))
	}
	s.Axes = nil // the cost of a picture is that of all points
	tr, err := t.start(ctx, search.Job{Study: s, Key: search.Key{System: system}})
	if err != nil {
		return c, err
	}
	defer func() { err = tr.end(err) }()

	order := tr.order(1)
	steps := min(costSteps, tr.steps)
	last := time.Now() // the time before was for building the network
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
	if len(times) > 1 { // the first step uses cold memory, on a device that starts up
		times = times[1:]
	}
	perPicture := typical(times, !cpu).Seconds() / float64(tr.batch)
	c.Epoch = perPicture * float64(set.Train.Len()/whole*whole)

	if s.BNStatistics == search.BNPrecise {
		if err := tr.Measure(ctx, order[:tr.batch]); err != nil {
			return c, err
		}
	}
	some := set.Test // a GPU may take other pictures instead, which is as fast
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

// typical is the median, which other work of the machine changes little. It is the
// mean of a GPU's steps, because they are reported in groups.
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
