package trainer

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"unsafe"

	"github.com/sbinet/npyio/npz"

	"igcsearch/search"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Trace trains the first steps of a job and writes, as npz, what another
// framework needs to replay them:
//
//	init/NAME, final/NAME   all parameters and running statistics
//	step/k/images           (N, C, H, W) as fed: cropped, mirrored, normalised
//	step/k/labels           (N)
//	step/k/logits           (N, classes)
//	step/k/loss, step/k/lr  scalars; the loss is the mean
//	step/k/grad/NAME        of the mean loss, without weight decay
//
// and of a study with precise statistics or averaged weights
//
//	step/k/average          the share of the step's weights in their average
//	evaluated/NAME          what an evaluation after the last step uses
//	statistics/images       (batches, N, C, H, W) that its statistics are of
//
// k counts from 0. Names and shapes are PyTorch's.
func (t *Trainer) Trace(ctx context.Context, job search.Job, steps int, w io.Writer) error {
	tr, err := t.start(ctx, job)
	if err != nil {
		return err
	}
	defer tr.end()
	out := npz.NewWriter(w)
	if err := tr.trace(ctx, steps, out.Write); err != nil {
		return err
	}
	return out.Close()
}

func (tr *training) trace(ctx context.Context, steps int, write func(name string, value any) error) error {
	m := tr.Model()
	put := func(name string, data []float32, shape ...int) error {
		return write(name+".npy", array(data, shape...))
	}
	all := func(prefix string) error {
		for _, p := range m.Params {
			if err := put(prefix+p.Name, p.Value, p.Shape...); err != nil {
				return err
			}
		}
		for _, s := range m.Stats {
			if err := put(prefix+s.Name, s.Value, len(s.Value)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := all("init/"); err != nil {
		return err
	}
	var order []int // of the epoch that step k is in
	for k := range steps {
		epoch, step := 1+k/tr.steps, k%tr.steps
		if step == 0 {
			order = tr.order(epoch)
		}
		rates, loss := tr.rates(epoch, step), 0.
		err := tr.Train(ctx, epoch, order[step*tr.batch:][:tr.batch], []graph.Rates{rates}, func(_ int, s Score) error {
			loss = s.Loss
			return nil
		})
		if err == nil {
			err = tr.Pull()
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", k, err)
		}
		pictures, labels, logits, err := tr.Last()
		if err != nil {
			return fmt.Errorf("step %d: %w", k, err)
		}
		prefix, in := fmt.Sprintf("step/%d/", k), m.Net.Layers[0].In
		if err := put(prefix+"images", pictures, tr.batch, in.C, in.H, in.W); err != nil {
			return err
		}
		numbers := make([]int64, tr.batch)
		for i, label := range labels {
			numbers[i] = int64(label)
		}
		if err := write(prefix+"labels.npy", numbers); err != nil {
			return err
		}
		if err := put(prefix+"logits", logits, tr.batch, m.Net.Classes); err != nil {
			return err
		}
		if err := write(prefix+"loss.npy", loss); err != nil {
			return err
		}
		if err := write(prefix+"lr.npy", tr.rate(epoch, step)); err != nil {
			return err
		}
		if tr.job.Study.WeightAverage > 0 {
			if err := write(prefix+"average.npy", float64(rates.Average)); err != nil {
				return err
			}
		}
		for _, p := range m.Params {
			if err := put(prefix+"grad/"+p.Name, p.Grad, p.Shape...); err != nil {
				return err
			}
		}
	}
	if err := all("final/"); err != nil {
		return err
	}
	return tr.traceEvaluation(ctx, put)
}

// traceEvaluation writes what an evaluation after the last step would use, and the
// pictures that its statistics are measured on.
func (tr *training) traceEvaluation(ctx context.Context, put func(name string, data []float32, shape ...int) error) error {
	s := tr.job.Study
	if s.WeightAverage == 0 && s.BNStatistics != search.BNPrecise {
		return nil
	}
	if err := tr.forEvaluation(ctx, func() error { return nil }); err != nil {
		return err
	}
	if err := tr.Pull(); err != nil {
		return err
	}
	for _, t := range evaluated(tr.Model()) {
		if err := put("evaluated/"+t.Name, t.Data, t.Shape...); err != nil {
			return err
		}
	}
	if s.BNStatistics != search.BNPrecise {
		return nil
	}
	order, in := tr.measured(), tr.Model().Net.Input()
	pictures, err := tr.pictures(ctx, order)
	if err != nil {
		return err
	}
	return put("statistics/images", pictures, len(order)/tr.batch, tr.batch, in.C, in.H, in.W)
}

// pictures returns training pictures as they are evaluated, (N, C, H, W).
func (tr *training) pictures(ctx context.Context, order []int) ([]float32, error) {
	in := tr.Model().Net.Input()
	batches := tr.set.Batches(ctx, &tr.set.Train, order, tr.batch, nil, 0, 0)
	defer batches.Close()
	blocks := kernel.Blocks(tr.batch)
	x, labels := make([]float32, blocks*in.C*in.H*in.W*kernel.Lanes), make([]float32, blocks*kernel.Lanes)
	out := make([]float32, len(order)*in.C*in.H*in.W)
	for to := out; len(to) > 0; {
		n, err := batches.Next(x, labels)
		if err != nil {
			return nil, err
		}
		kernel.Unpack(to[:n*in.C*in.H*in.W], x, n, in.C, in.H, in.W)
		to = to[n*in.C*in.H*in.W:]
	}
	return out, nil
}

// array is data as a pointer to a Go array of the given shape, which is how
// npyio learns of more than one dimension.
func array(data []float32, shape ...int) any {
	t := reflect.TypeFor[float32]()
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		t = reflect.ArrayOf(shape[i], t)
		n *= shape[i]
	}
	if n != len(data) {
		panic(fmt.Sprintf("trainer: %d values of shape %v", len(data), shape))
	}
	return reflect.NewAt(t, unsafe.Pointer(unsafe.SliceData(data))).Interface()
}
