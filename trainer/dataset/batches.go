package dataset

import (
	"context"
	"fmt"
	"image"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/sourcegraph/conc"
)

// Batches returns the pictures of a split batch by batch. A set in memory writes
// them in Next. A folder decodes them ahead, in a few goroutines that Close ends.
type Batches struct {
	set         *Set
	split       *Split
	order       []int
	size        int
	aug         *Augmentation
	seed, epoch uint64
	ahead       *decoding // nil: the pixels are in memory
}

// Batches returns the pictures of a split in the given order, or if it is nil in
// their own order, size at a time; the last batch may be smaller. If aug is nil,
// the pictures are not augmented; those of a folder are cut as Options.Resize says.
// Otherwise a picture's view depends only on seed, epoch and its index in the
// split. Close must be called. The end of ctx also ends the decoding.
func (s *Set) Batches(ctx context.Context, split *Split, order []int, size int, aug *Augmentation,
	seed, epoch uint64) *Batches {
	if aug != nil && (s.folder == nil && aug.ResizeMax != 0 ||
		s.folder != nil && (aug.Pad != 0 || aug.ResizeMax < s.folder.resize)) {
		panic(fmt.Sprintf("dataset: %+v is no augmentation of %s", *aug, s.Name))
	}
	if order == nil {
		order = make([]int, split.Len())
		for i := range order {
			order[i] = i
		}
	}
	b := &Batches{set: s, split: split, order: order, size: size, aug: aug, seed: seed, epoch: epoch}
	if s.folder != nil {
		b.ahead = b.decode(ctx)
	}
	return b
}

// Next writes the next batch and returns how many pictures it has: x is as in
// Set.Fill, and the labels are in labels[:n]. After the last batch the error is
// io.EOF. If a picture of a folder cannot be read any more, the error names it, and
// there are no more batches. Next does not allocate for a set in memory.
func (b *Batches) Next(x, labels []float32) (n int, err error) {
	batch := b.order[:min(b.size, len(b.order))]
	if len(batch) == 0 {
		return 0, io.EOF
	}
	split := b.split
	for i, picture := range batch {
		labels[i] = float32(split.Labels[picture])
	}
	if b.ahead != nil {
		if err := b.ahead.next(b.set, x); err != nil {
			return 0, fmt.Errorf("%s: %w", b.set.Name, err)
		}
	} else {
		b.set.Fill(x, split, batch, b.aug, b.seed, b.epoch)
	}
	b.order = b.order[len(batch):]
	return len(batch), nil
}

// Close ends the decoding and waits for its goroutines. It may be called twice.
func (b *Batches) Close() {
	if b.ahead != nil {
		b.ahead.stop()
	}
}

// slots is how many batches are in memory at once, as bytes: one that Next reads and
// two ahead of it.
const slots = 3

// decoders is how many goroutines decode for one training. With eight, a training
// does not wait for them.
func decoders() int { return max(1, min(runtime.GOMAXPROCS(0), 8)) }

// decoding is a ring of batches. The feeder takes a slot from free, puts it into
// queue and hands out its pictures. The decoder of the last one makes it ready. next
// reads it and puts it back into free.
type decoding struct {
	free, queue chan *slot
	places      []int // 0, 1, … for Fill
	done        <-chan struct{}
	cause       func() error
	stop        func()
}

// slot is a batch of decoded pictures.
type slot struct {
	split Split // pixels only
	n     int
	left  atomic.Int32  // pictures to decode
	ready chan struct{} // a token when none is left

	mu    sync.Mutex
	err   error // of the first picture in the batch that cannot be read
	errAt int
}

// job is a picture that is to be decoded into its place in a slot.
type job struct {
	slot           *slot
	place, picture int
}

// decode starts the goroutines. Each picture has a place of its own, so that the
// result does not depend on their number.
func (b *Batches) decode(ctx context.Context) *decoding {
	ctx, cancel := context.WithCancel(ctx)
	d := &decoding{
		free: make(chan *slot, slots), queue: make(chan *slot, slots),
		done: ctx.Done(), cause: func() error { return context.Cause(ctx) },
	}
	size := min(b.size, len(b.order))
	pixels := b.set.C * b.set.H * b.set.W
	for range slots {
		d.free <- &slot{split: Split{Pixels: make([]byte, size*pixels)}, ready: make(chan struct{}, 1)}
	}
	for i := range size {
		d.places = append(d.places, i)
	}
	jobs := make(chan job)
	var wg conc.WaitGroup
	order := b.order
	wg.Go(func() {
		defer close(jobs)
		for len(order) > 0 {
			batch := order[:min(size, len(order))]
			order = order[len(batch):]
			var s *slot
			select {
			case s = <-d.free:
			case <-d.done:
				return
			}
			s.n, s.err = len(batch), nil
			s.left.Store(int32(s.n))
			d.queue <- s // never blocks: the queue has room for all slots
			for place, picture := range batch {
				select {
				case jobs <- job{s, place, picture}:
				case <-d.done:
					return
				}
			}
		}
	})
	for range b.set.folder.decoders {
		wg.Go(func() {
			scratch := image.NewRGBA(image.Rect(0, 0, b.set.W, b.set.H))
			for j := range jobs {
				err := b.set.folder.show(j.slot.split.Pixels[j.place*pixels:(j.place+1)*pixels], scratch,
					b.split.files[j.picture].Name, b.aug, mix(mix(b.seed, b.epoch), uint64(j.picture)))
				j.slot.finish(j.place, err)
			}
		})
	}
	d.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	return d
}

// finish notes that a picture is decoded.
func (s *slot) finish(place int, err error) {
	if err != nil {
		s.mu.Lock()
		if s.err == nil || place < s.errAt {
			s.err, s.errAt = err, place
		}
		s.mu.Unlock()
	}
	if s.left.Add(-1) == 0 {
		s.ready <- struct{}{}
	}
}

// next writes the next batch, normalised, to x.
func (d *decoding) next(set *Set, x []float32) error {
	if err := d.cause(); err != nil {
		return err
	}
	var s *slot
	select {
	case s = <-d.queue:
	case <-d.done:
		return d.cause()
	}
	select {
	case <-s.ready:
	case <-d.done:
		return d.cause()
	}
	if s.err != nil {
		d.stop()
		return s.err
	}
	set.Fill(x, &s.split, d.places[:s.n], nil, 0, 0)
	d.free <- s
	return nil
}
