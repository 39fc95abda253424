package trainer

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"unsafe"

	"github.com/sbinet/npyio/npz"

	"igcsearch/search"
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
		rate, loss := tr.rate(epoch, step), 0.
		err := tr.Train(ctx, epoch, order[step*tr.batch:][:tr.batch], []float32{float32(rate)}, func(_ int, l float64, _ int) error {
			loss = l
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
		if err := write(prefix+"lr.npy", rate); err != nil {
			return err
		}
		for _, p := range m.Params {
			if err := put(prefix+"grad/"+p.Name, p.Grad, p.Shape...); err != nil {
				return err
			}
		}
	}
	return all("final/")
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
