package trainer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sbinet/npyio/npz"

	"igcsearch/search"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/interchange"
	"igcsearch/trainer/kernel"
)

// Trace trains the first steps of a job and writes an npz file that another
// framework can replay:
//
//	init/NAME, final/NAME   all parameters and running statistics
//	step/k/images           (N, C, H, W) as fed: cropped, mirrored, normalised
//	step/k/labels           (N)
//	step/k/logits           (N, classes)
//	step/k/loss, step/k/lr  scalars; the loss is the mean
//	step/k/grad/NAME        of the mean loss, without weight decay
//
// and, if the study has precise statistics or averaged weights,
//
//	step/k/average          the share of the step's weights in their average
//	evaluated/NAME          the tensors of an evaluation after the last step
//	statistics/images       (batches, N, C, H, W), for its statistics
//
// k counts from 0. Names and shapes are PyTorch's.
func (t *Trainer) Trace(ctx context.Context, job search.Job, steps int, w io.Writer) (err error) {
	tr, err := t.start(ctx, job)
	if err != nil {
		return err
	}
	defer func() { err = tr.end(err) }()
	out := npz.NewWriter(w)
	if err := tr.trace(ctx, steps, out.Write); err != nil {
		return err
	}
	return out.Close()
}

// writer stores a value in the npz file.
type writer func(name string, value any) error

// put stores a tensor.
func (write writer) put(name string, data []float32, shape ...int) error {
	return write(name+".npy", interchange.Array(data, shape...))
}

func (tr *training) trace(ctx context.Context, steps int, write writer) error {
	m := tr.Model()
	all := func(prefix string) error {
		for _, p := range m.Params {
			if err := write.put(prefix+p.Name, p.Value, p.Shape...); err != nil {
				return err
			}
		}
		for _, s := range m.Stats {
			if err := write.put(prefix+s.Name, s.Value, len(s.Value)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := all("init/"); err != nil {
		return err
	}
	for k := range steps {
		if err := tr.traceStep(ctx, k, write); err != nil {
			return err
		}
	}
	if err := all("final/"); err != nil {
		return err
	}
	return tr.traceEvaluation(ctx, write)
}

// traceStep trains step k and writes it.
func (tr *training) traceStep(ctx context.Context, k int, write writer) error {
	m := tr.Model()
	epoch, step := 1+k/tr.steps, k%tr.steps
	rates, loss := tr.rates(epoch, step), 0.
	pictures := tr.order(epoch)[step*tr.batch:][:tr.batch]
	err := tr.Train(ctx, epoch, pictures, []graph.Rates{rates}, func(_ int, s Score) error {
		loss = s.Loss
		return nil
	})
	if err == nil {
		err = tr.Pull()
	}
	if err != nil {
		return fmt.Errorf("step %d: %w", k, err)
	}
	images, labels, logits, err := tr.Last()
	if err != nil {
		return fmt.Errorf("step %d: %w", k, err)
	}
	numbers := make([]int64, tr.batch)
	for i, label := range labels {
		numbers[i] = int64(label)
	}
	prefix, in := fmt.Sprintf("step/%d/", k), m.Net.Input()
	errs := []error{
		write.put(prefix+"images", images, tr.batch, in.C, in.H, in.W),
		write(prefix+"labels.npy", numbers),
		write.put(prefix+"logits", logits, tr.batch, m.Net.Classes),
		write(prefix+"loss.npy", loss),
		write(prefix+"lr.npy", tr.rate(epoch, step)),
	}
	if tr.job.Study.WeightAverage > 0 {
		errs = append(errs, write(prefix+"average.npy", float64(rates.Average)))
	}
	for _, p := range m.Params {
		errs = append(errs, write.put(prefix+"grad/"+p.Name, p.Grad, p.Shape...))
	}
	return errors.Join(errs...)
}

// traceEvaluation writes the tensors of an evaluation after the last step, and the
// pictures for its statistics.
func (tr *training) traceEvaluation(ctx context.Context, write writer) error {
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
		if err := write.put("evaluated/"+t.Name, t.Data, t.Shape...); err != nil {
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
	return write.put("statistics/images", pictures, len(order)/tr.batch, tr.batch, in.C, in.H, in.W)
}

// pictures returns training pictures without augmentation, (N, C, H, W).
func (tr *training) pictures(ctx context.Context, order []int) ([]float32, error) {
	in := tr.Model().Net.Input()
	batches := tr.set.Batches(ctx, &tr.set.Train, order, tr.batch, nil, 0, 0)
	defer batches.Close()
	blocks := kernel.Blocks(tr.batch)
	size := in.C * in.H * in.W
	x, labels := make([]float32, blocks*size*kernel.Lanes), make([]float32, blocks*kernel.Lanes)
	out := make([]float32, len(order)*size)
	for to := out; len(to) > 0; {
		n, err := batches.Next(x, labels)
		if err != nil {
			return nil, err
		}
		kernel.Unpack(to[:n*size], x, n, in.C, in.H, in.W)
		to = to[n*size:]
	}
	return out, nil
}
