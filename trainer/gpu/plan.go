package gpu

import (
	"fmt"
	"math"
	"strings"

	"igcsearch/space"
	"igcsearch/trainer/graph"
)

// lanes is the number of pictures in a block and of threads in a warp.
const lanes = 32

// launch is one kernel on the device.
type launch struct {
	kernel      string
	grid, block [3]int
	shared      int // bytes
	args        any // a pointer to a structure of args.go

	// The launches of a plan are in two branches, each in the order of the list: the
	// main one, and those that may run beside it. A launch begins when those of the
	// other branch that are among the first so many of the list have ended.
	aside bool
	after int
}

// moduleOf is the name of the file in which a kernel is.
func moduleOf(kernel string) string {
	if at := strings.LastIndex(kernel, "_co"); at >= 0 {
		return "conv" + kernel[at:]
	}
	switch head, _, _ := strings.Cut(kernel, "_"); {
	case strings.Contains(kernel, "_tf32"):
		return "conv_tc"
	case strings.HasPrefix(kernel, "conv_any"):
		return "conv_any"
	case head == "weight":
		return "weight_grad"
	case head == "norm":
		return "norm"
	case head == "linear", head == "cross":
		return "head"
	case head == "batch", head == "repack":
		return "batch"
	case kernel == "peak", kernel == "copy":
		return "bench"
	case head == "update", head == "finish", kernel == "sum_branches", kernel == "exchange":
		return "update"
	}
	return "unit"
}

// plan is a list of launches and the memory that they need. A model has one for
// each purpose; all use the same parameters.
type plan struct {
	*tensors
	n, blocks int // pictures of a batch, and blocks of them
	purpose   purpose
	gap       int  // bytes that stay free behind each buffer
	tf32      bool // the setting precision = "tf32"
	launches  []launch
	buffers   []*buffer     // those of this plan alone
	values    []*buffer     // of the program
	sizes     []space.Shape // of the values
	norms     map[*graph.Norm]*normState
	convs     map[*graph.Conv]*convState

	x, y, logits, dlogits, pooled, dpooled *buffer
	loss, correct                          *buffer
	steps                                  *buffer // the type state
	segments                               []segment
	partFloats                             int
	partsBuffer                            *buffer
	counted                                int     // of the counters
	scales, shifts                         *buffer // of an evaluation: of all channels

	aside  bool  // launches are put beside the main branch
	joined int   // how many launches the next of the main branch waits for
	ends   []int // how many launches there were at each call of bound
}

// purpose is what a plan does with a batch.
type purpose int

const (
	training purpose = iota
	evaluating
	measuring // runs the forward pass of training and adds up sums for the precise statistics
)

// newPlan maps a model's program to launches on batches of n pictures. They read
// and change the given state. feed adds the first launches, which put the batch
// into x (B, C, H, W, 32) and y (B, 32).
func newPlan(t *tensors, m *graph.Model, n int, purpose purpose, tf32 bool, state *buffer, feed func(p *plan)) *plan {
	p := &plan{tensors: t, steps: state, n: n, blocks: ceil(n, lanes), purpose: purpose, tf32: tf32,
		sizes: m.Program.Values,
		norms: map[*graph.Norm]*normState{}, convs: map[*graph.Conv]*convState{}}
	for i, s := range p.sizes {
		p.values = append(p.values, p.floats(fmt.Sprintf("value %d", i), p.blocks*size(s)*lanes))
	}
	p.x, p.y = p.values[graph.Pictures], p.floats("labels", p.blocks*lanes)
	p.partsBuffer = p.floats("parts", 0)
	p.loss, p.correct = p.floats("loss", p.blocks*lanes), p.floats("correct", p.blocks*lanes)
	feed(p)
	if purpose == evaluating {
		p.running()
	}
	for _, i := range m.Program.Forward {
		p.instruction(i)
	}
	if purpose == training {
		for _, i := range m.Program.Backward {
			p.instruction(i)
		}
	}
	return p
}

// buffer reserves memory of this plan, which others use when no launch needs it.
func (p *plan) buffer(name string, bytes int) *buffer {
	b := &buffer{name: name, bytes: bytes, first: -1}
	p.buffers = append(p.buffers, b)
	return b
}

func (p *plan) floats(name string, n int) *buffer  { return p.buffer(name, 4*n) }
func (p *plan) doubles(name string, n int) *buffer { return p.buffer(name, 8*n) }

func (p *plan) launch(kernel string, grid, block [3]int, shared int, args any) {
	l := launch{kernel, grid, block, shared, args, p.aside, p.joined}
	if p.aside {
		l.after = len(p.launches)
	}
	p.launches = append(p.launches, l)
}

func (p *plan) value(v graph.Value) *buffer {
	if v == graph.None {
		return nil
	}
	return p.values[v]
}

func (p *plan) instruction(i graph.Instruction) {
	switch i := i.(type) {
	case *graph.Conv:
		p.conv(i)
	case *graph.ConvGrad:
		p.convGrad(i)
	case *graph.Add:
		p.add(i)
	case *graph.AddGrad:
		p.addGrad(i)
	case *graph.MaxPool:
		p.maxPool(i)
	case *graph.MaxPoolGrad:
		p.maxPoolGrad(i)
	case *graph.Pool:
		p.pool(i)
	case *graph.PoolGrad:
		p.poolGrad(i)
	case *graph.Linear:
		p.linear(i)
	case *graph.LinearGrad:
		p.linearGrad(i)
	case *graph.CrossEntropy:
		p.crossEntropy()
	case *graph.Sum:
		n := p.value(i.To).bytes / 4
		p.launch("sum", [3]int{min(ceil(n/4, 256), 2048), 1, 1}, [3]int{256, 1, 1}, 0,
			&sumArgs{len: int64(n), to: p.value(i.To), a: p.value(i.A), b: p.value(i.B)})
	default:
		panic(fmt.Sprintf("gpu: no kernel for %T", i))
	}
}

// unit starts the arguments of a kernel of kernels/unit.cu that reads value z.
func (p *plan) unit(z graph.Value) (*unitArgs, space.Shape) {
	s := p.sizes[z]
	return &unitArgs{c: int32(s.C), h: int32(s.H), w: int32(s.W), n: int32(p.n), z: p.value(z)}, s
}

func (p *plan) add(i *graph.Add) {
	a, s := p.unit(i.Z)
	z := p.state(i.ZNorm)
	a.scale, a.shift, a.x, a.out, a.low = z.scale, z.shift, p.value(i.X), p.value(i.Out), least(!i.Linear)
	if i.XNorm != nil {
		x := p.state(i.XNorm)
		a.xscale, a.xshift = x.scale, x.shift
	}
	p.rows("add", s.H, s.C, a)
}

func (p *plan) addGrad(i *graph.AddGrad) {
	a, s := p.unit(i.Of.Z)
	a.x, a.g, a.gx, a.low = p.value(i.Of.X), p.value(i.G), p.value(i.GX), least(!i.Of.Linear)
	if !i.Of.Linear {
		a.out = p.value(i.Of.Out)
	}
	p.gradRows("add_grad", s, a, p.backward(i.Of.ZNorm), p.backward(i.Of.XNorm))
}

func (p *plan) maxPool(i *graph.MaxPool) {
	a, s := p.unit(i.Z)
	z := p.state(i.Norm)
	a.scale, a.shift, a.out = z.scale, z.shift, p.value(i.Out)
	p.rows("max_pool", (s.H+1)/2, s.C, a)
}

func (p *plan) maxPoolGrad(i *graph.MaxPoolGrad) {
	a, s := p.unit(i.Of.Z)
	z := p.state(i.Of.Norm)
	a.scale, a.shift, a.out, a.g, a.gx = z.scale, z.shift, p.value(i.Of.Out), p.value(i.G), p.value(i.GX)
	p.gradRows("max_pool_grad", s, a, p.backward(i.Of.Norm), nil)
}

func (p *plan) pool(i *graph.Pool) {
	a, s := p.unit(i.Z)
	p.pooled = p.floats("pooled", p.blocks*s.C*lanes)
	a.out, a.low = p.pooled, least(i.Norm != nil)
	if i.Norm != nil {
		z := p.state(i.Norm)
		a.scale, a.shift = z.scale, z.shift
	}
	p.launch("pool", [3]int{1, s.C, p.blocks}, [3]int{32, 8, 1}, 4*8*32, a)
}

func (p *plan) poolGrad(i *graph.PoolGrad) {
	a, s := p.unit(i.Of.Z)
	a.g, a.gx, a.low = p.dpooled, p.value(i.GX), least(i.Of.Norm != nil)
	if i.Of.Norm != nil {
		z := p.state(i.Of.Norm)
		a.scale, a.shift = z.scale, z.shift
	}
	p.gradRows("pool_grad", s, a, p.backward(i.Of.Norm), nil)
}

func (p *plan) linear(i *graph.Linear) {
	p.logits = p.floats("logits", p.blocks*i.Classes*lanes)
	p.launch("linear", [3]int{ceil(i.Classes, 8), p.blocks, 1}, [3]int{32, 8, 1}, 0, p.head(i))
}

func (p *plan) linearGrad(i *graph.LinearGrad) {
	p.dpooled = p.buffer("dpooled", p.pooled.bytes)
	a := p.head(i.Of)
	a.dlogits = p.dlogits
	w := *a
	a.dpool = p.dpooled
	w.dweight, w.dbias = p.gradient(i.Of.Name+".weight"), p.gradient(i.Of.Name+".bias")
	p.launch("linear_grad", [3]int{ceil(i.Of.C, 8), p.blocks, 1}, [3]int{32, 8, 1}, 0, a)
	p.beside(func() {
		p.launch("linear_weight_grad", [3]int{ceil(i.Of.C, 8), i.Of.Classes, 1}, [3]int{32, 8, 1}, 0, &w)
	})
}

func (p *plan) crossEntropy() {
	classes := p.logits.bytes / (4 * p.blocks * lanes)
	a := &headArgs{k: int32(classes), blocks: int32(p.blocks), gain: 1 / float32(p.n), logits: p.logits, labels: p.y,
		loss: p.loss, correct: p.correct}
	if p.purpose == training {
		p.dlogits = p.buffer("dlogits", p.logits.bytes)
		a.dlogits = p.dlogits
	}
	p.launch("cross_entropy", [3]int{p.blocks, 1, 1}, [3]int{32, 8, 1}, 4*3*8*32, a)
}

func (p *plan) head(l *graph.Linear) *headArgs {
	return &headArgs{c: int32(l.C), k: int32(l.Classes), blocks: int32(p.blocks), pool: p.pooled, logits: p.logits,
		weight: p.param(l.Name + ".weight"), bias: p.param(l.Name + ".bias")}
}

// rows launches a kernel in which a warp computes a row of a channel.
func (p *plan) rows(kernel string, h, c int, args any) {
	p.launch(kernel, p.rowsGrid(h, c), [3]int{32, 8, 1}, lastBlock, args)
}

func (p *plan) rowsGrid(h, c int) [3]int { return [3]int{ceil(h, 8), c, p.blocks} }

// lastBlock is the shared memory, in bytes, of kernels that end a normalisation.
const lastBlock = 4

// gradRows launches a kernel of rows that ends the normalisations of its two sums,
// those that there are.
func (p *plan) gradRows(kernel string, s space.Shape, a *unitArgs, norm, xnorm *normArgs) {
	parts := p.blocks * s.H
	a.parts = int32(parts)
	if norm != nil {
		a.sums, a.norm = p.floats("sums", 2*s.C*parts), *norm
		a.norm.counters = p.counter(p.rowsGrid(s.H, s.C))
	}
	if xnorm != nil { // in the same blocks
		a.xsums, a.xnorm = p.floats("sums", 2*s.C*parts), *xnorm
	}
	p.rows(kernel, s.H, s.C, a)
}

// finish ends every plan: it counts the step, or the right answers of the batch.
func (p *plan) finish(losses, corrects *buffer) {
	p.launch("finish", [3]int{1, 1, 1}, [3]int{256, 1, 1}, 8*32, &finishArgs{
		lanes: int32(p.blocks * lanes), batch: int32(p.n), evaluating: flag(p.purpose != training),
		loss: p.loss, correct: p.correct, state: p.steps, losses: losses, corrects: corrects})
}

// traffic is how many bytes the launches read and write. Each buffer of a launch
// counts once.
func (p *plan) traffic() int {
	n := 2 * 4 * p.partFloats // the parts of the weights' gradients are written and added up
	for _, l := range p.launches {
		seen := map[*buffer]bool{p.partsBuffer: true}
		visit(l.args, func(_ uintptr, b *buffer) {
			if r := b.root(); !seen[r] && !r.kept {
				n += r.bytes
				seen[r] = true
			}
		})
	}
	return n
}

// align is what every buffer's place is a multiple of.
const align = 256

// arrange finds a place for every buffer, counted from 0, and returns how many
// bytes they take together. Buffers that are kept share with no other.
func (p *plan) arrange() int {
	for i, l := range p.launches {
		from, to := p.window(i)
		visit(l.args, func(_ uintptr, b *buffer) {
			if b = b.root(); b.kept {
				return // other plans use it too, perhaps at this moment
			}
			if b.first < 0 {
				b.first = from
			}
			b.first, b.last = min(b.first, from), max(b.last, to)
		})
	}
	var used []*buffer
	var spans []*graph.Span
	for _, b := range p.buffers {
		span := &graph.Span{Bytes: b.bytes + p.gap, First: b.first, Last: b.last}
		switch {
		case b.kept:
			span.First, span.Last = 0, math.MaxInt
		case b.first < 0:
			continue // a value that this plan does not compute
		}
		used, spans = append(used, b), append(spans, span)
	}
	end := graph.Arrange(spans, align)
	for i, b := range used {
		b.addr = uint64(spans[i].At)
	}
	return end
}
