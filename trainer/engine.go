package trainer

import (
	"context"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// Engine trains one network on some device. It is not safe for concurrent use.
type Engine interface {
	// Model holds the parameters, their momentum and gradients, and the
	// statistics in host memory. Where the device has memory of its own, they
	// are those of the last Pull.
	Model() *graph.Model
	// Arithmetic names the arithmetic that decides the bits of the results:
	// "avx512", "bf16", "bf16-amx", "cuda sm_90 (ptxas 11.8)".
	Arithmetic() string
	// Train trains on the pictures of order, batch by batch. len(order) is a
	// multiple of the batch, and rates[k] are those of step k. Train calls done
	// for every step in order, from its own goroutine and perhaps some steps
	// late, with the step's mean loss and its right answers. An error of done
	// ends the training; so does ctx, with its error.
	Train(ctx context.Context, epoch int, order []int, rates []graph.Rates, done func(step int, s Score) error) error
	// Measure computes the precise statistics with the present weights, on the
	// training pictures of order, not augmented. len(order) is a multiple of the
	// batch. It changes nothing that a training step needs.
	Measure(ctx context.Context, order []int) error
	// Exchange swaps the weights with their averages.
	Exchange() error
	// Evaluate measures the pictures of a split, not augmented, by the
	// statistics of graph.Model.Evaluate. The split is not empty.
	Evaluate(ctx context.Context, split *dataset.Split) (Score, error)
	// Push copies Model to the device.
	Push() error
	// Pull copies the device's tensors to Model.
	Pull() error
	// Last returns the last batch of Train: pictures (N, C, H, W), labels and
	// logits (N, K).
	Last() (pictures []float32, labels []int, logits []float32, err error)
	// Close frees the engine and its Model.
	Close()
}

// Score is what a network makes of some pictures.
type Score struct {
	Correct int
	Loss    float64 // mean cross-entropy (nats)
}

// cpu is the engine of the processor.
type cpu struct {
	model  *graph.Model
	batch  int // pictures of a step
	set    *dataset.Set
	r      Recipe
	labels []float32 // of the batch in the model
}

var _ Engine = (*cpu)(nil)

// newCPU builds the network for batches of n pictures.
func newCPU(net space.Network, n, threads int, set *dataset.Set, r Recipe) (*cpu, error) {
	isa, err := kernel.Detect()
	if err != nil {
		return nil, err
	}
	o := r.GraphOptions()
	o.ISA, o.Threads = isa, threads
	m, err := graph.New(net, n, o)
	if err != nil {
		return nil, err
	}
	return &cpu{model: m, batch: n, set: set, r: r}, nil
}

func (c *cpu) Model() *graph.Model { return c.model }
func (c *cpu) Push() error         { return nil }
func (c *cpu) Pull() error         { return nil }
func (c *cpu) Close()              { c.model.Close() }

func (c *cpu) Arithmetic() string {
	return search.Recipe{Precision: c.r.Precision}.Arithmetic(c.model.Team().ISA().String())
}

// next puts the next n pictures into the model.
func (c *cpu) next(ctx context.Context, from *dataset.Batches, n int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	x, y := c.model.Batch(n)
	c.labels = y[:n]
	_, err := from.Next(x, y)
	return err
}

func (c *cpu) Train(ctx context.Context, epoch int, order []int, rates []graph.Rates,
	done func(step int, s Score) error) error {
	batches := c.set.Batches(ctx, &c.set.Train, order, c.batch, c.r.Augmentation, c.r.Seed, uint64(epoch))
	defer batches.Close()
	for step, r := range rates {
		if err := c.next(ctx, batches, c.batch); err != nil {
			return err
		}
		loss, err := c.model.Step()
		if err != nil {
			return err
		}
		c.model.Update(r, c.r.Momentum, c.r.WeightDecay)
		if err := done(step, Score{c.model.Correct(true), loss}); err != nil {
			return err
		}
	}
	return nil
}

func (c *cpu) Measure(ctx context.Context, order []int) error {
	batches := c.set.Batches(ctx, &c.set.Train, order, c.batch, nil, c.r.Seed, 0)
	defer batches.Close()
	for range len(order) / c.batch {
		if err := c.next(ctx, batches, c.batch); err != nil {
			return err
		}
		if err := c.model.Measure(); err != nil {
			return err
		}
	}
	c.model.Measured()
	return nil
}

func (c *cpu) Exchange() error {
	c.model.Exchange()
	return nil
}

func (c *cpu) Evaluate(ctx context.Context, split *dataset.Split) (s Score, err error) {
	batches := c.set.Batches(ctx, split, nil, c.batch, nil, c.r.Seed, 0)
	defer batches.Close()
	for first := 0; first < split.Len(); first += c.batch {
		n := min(c.batch, split.Len()-first)
		if err := c.next(ctx, batches, n); err != nil {
			return s, err
		}
		loss, err := c.model.Evaluate()
		if err != nil {
			return s, err
		}
		s.Loss += float64(loss * float64(n)) // no fused multiply–add, which only some processors have
		s.Correct += c.model.Correct(false)
	}
	s.Loss /= float64(split.Len())
	return s, nil
}

func (c *cpu) Last() (pictures []float32, labels []int, logits []float32, err error) {
	for _, label := range c.labels {
		labels = append(labels, int(label))
	}
	return c.model.Pictures(), labels, c.model.Logits(true), nil
}
