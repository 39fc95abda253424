package trainer

import (
	"context"

	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// engine trains one network on some device. It is not safe for concurrent use.
type engine interface {
	// Model holds the parameters, their momentum and gradients, and the running
	// statistics in host memory; where the device has a memory of its own, as
	// of the last Pull.
	Model() *graph.Model
	// Arithmetic names whose bits the results are: "avx512", "cuda sm_90".
	Arithmetic() string
	// Train trains on the pictures of order, batch by batch; len(order) is a
	// multiple of the batch, rates[k] are those of step k. done hears
	// of every step in order, with the mean loss (nats) and how many pictures
	// it got right, from the goroutine that called Train and perhaps some steps
	// late; its error ends the training. So does ctx, with its error.
	Train(ctx context.Context, epoch int, order []int, rates []graph.Rates, done func(step int, loss float64, correct int) error) error
	// Measure recomputes the precise statistics with the weights as they are, on
	// the training pictures of order, as they are; len(order) is a multiple of the
	// batch. It changes nothing that a training step needs.
	Measure(ctx context.Context, order []int) error
	// Exchange swaps the weights with their averages.
	Exchange() error
	// Evaluate tells how right the network is on the pictures of a split, as they
	// are, by the statistics of graph.Model.Evaluate. The split is not empty.
	Evaluate(ctx context.Context, split *dataset.Split) (gpu.Score, error)
	// Push takes over what was set in Model.
	Push() error
	// Pull brings Model up to date.
	Pull() error
	// Last is the last batch that Train saw: pictures (N, C, H, W), labels and
	// logits (N, K).
	Last() (pictures []float32, labels []int, logits []float32, err error)
	// Close frees the engine and its Model.
	Close()
}

var (
	_ engine = (*cpu)(nil)
	_ engine = (*gpu.Model)(nil)
)

// cpu is the engine of the processor.
type cpu struct {
	model  *graph.Model
	batch  int // pictures of a step
	set    *dataset.Set
	o      gpu.Options
	labels []float32 // of the batch in the model
}

// newCPU builds the network for batches of n pictures.
func newCPU(net space.Network, n, threads int, set *dataset.Set, o gpu.Options) (engine, error) {
	isa, err := kernel.Detect()
	if err != nil {
		return nil, err
	}
	m, err := graph.New(net, n, graph.Options{ISA: isa, Threads: threads, DecayAll: o.DecayAll, Average: o.Average, Precise: o.Precise})
	if err != nil {
		return nil, err
	}
	return &cpu{model: m, batch: n, set: set, o: o}, nil
}

func (c *cpu) Model() *graph.Model { return c.model }
func (c *cpu) Arithmetic() string  { return c.model.Team().ISA().String() }
func (c *cpu) Push() error         { return nil }
func (c *cpu) Pull() error         { return nil }
func (c *cpu) Close()              { c.model.Close() }

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

func (c *cpu) Train(ctx context.Context, epoch int, order []int, rates []graph.Rates, done func(step int, loss float64, correct int) error) error {
	batches := c.set.Batches(ctx, &c.set.Train, order, c.batch, c.o.Augmentation, c.o.Seed, uint64(epoch))
	defer batches.Close()
	for step, r := range rates {
		if err := c.next(ctx, batches, c.batch); err != nil {
			return err
		}
		loss, err := c.model.Step()
		if err != nil {
			return err
		}
		c.model.Update(r, c.o.Momentum, c.o.WeightDecay)
		if err := done(step, loss, c.model.Correct(true)); err != nil {
			return err
		}
	}
	return nil
}

func (c *cpu) Measure(ctx context.Context, order []int) error {
	batches := c.set.Batches(ctx, &c.set.Train, order, c.batch, nil, c.o.Seed, 0)
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

func (c *cpu) Evaluate(ctx context.Context, split *dataset.Split) (s gpu.Score, err error) {
	batches := c.set.Batches(ctx, split, nil, c.batch, nil, c.o.Seed, 0)
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
		s.Loss += loss * float64(n)
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
