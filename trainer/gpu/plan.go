package gpu

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// lanes is the number of pictures in a block; a warp's threads.
const lanes = 32

// launch is one kernel on the device.
type launch struct {
	kernel      string
	grid, block [3]int
	shared      int // bytes
	args        any // a pointer to one of the structures of args.go
}

// moduleOf is the file that has a kernel.
func moduleOf(kernel string) string {
	if at := strings.LastIndex(kernel, "_co"); at >= 0 {
		return "conv" + kernel[at:]
	}
	switch head, _, _ := strings.Cut(kernel, "_"); {
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

// plan is a list of launches and the memory they need: one for each purpose, over
// the same parameters.
type plan struct {
	*tensors
	n, blocks int // pictures of a batch, and blocks of them
	purpose   purpose
	launches  []launch
	buffers   []*buffer // those of this plan alone
	values    []*buffer // of the program
	norms     map[*graph.Norm]*normState
	convs     map[*graph.Conv]*convState

	x, y, logits, dlogits, pooled, dpooled *buffer
	loss, correct                          *buffer
	steps                                  *buffer // the state
	segments                               []segment
	parts, partFloats                      int
	partsBuffer                            *buffer
}

// purpose is what a plan does with a batch.
type purpose int

const (
	training purpose = iota
	evaluating
	measuring // the forward pass of a training, whose sums the precise statistics are made of
)

// tensors is what plans share: parameters with their momentum and gradients, and
// statistics, each in one piece.
type tensors struct {
	value, velocity, grad *buffer
	average               *buffer        // of value; nil without Options.Average
	stats                 *buffer        // running: all means, then all variances
	channels              int            // of all normalisations
	precise               *buffer        // as stats; nil without Options.Precise
	measured              *buffer        // (channels, 3), float64: what precise is made of
	place                 map[string]int // of a parameter or statistic in its piece
	params                []graph.Param
}

func newTensors(m *graph.Model) *tensors {
	t := &tensors{place: map[string]int{}, params: m.Params}
	n := 0
	for _, p := range m.Params {
		t.place[p.Name] = n
		n += len(p.Value)
	}
	floats := func(name string, n int) *buffer { return kept(name, 4*n) }
	t.value, t.velocity, t.grad = floats("value", n), floats("velocity", n), floats("grad", n)
	if m.Params[0].Average != nil {
		t.average = floats("average", n)
	}
	n = 0
	for _, kind := range []string{meanName, varianceName} {
		t.channels = n
		for _, s := range m.Stats {
			if strings.HasSuffix(s.Name, kind) {
				t.place[s.Name] = n
				n += len(s.Value)
			}
		}
	}
	t.stats = floats("stats", max(n, 1))
	if m.Precise != nil {
		t.precise, t.measured = floats("precise", n), kept("measured", 8*3*t.channels)
	}
	return t
}

// The statistics of a normalisation are its name with these.
const meanName, varianceName = ".running_mean", ".running_var"

func (t *tensors) kept() []*buffer {
	list := []*buffer{t.value, t.velocity, t.grad, t.stats}
	for _, b := range []*buffer{t.average, t.precise, t.measured} {
		if b != nil {
			list = append(list, b)
		}
	}
	return list
}

// exchange swaps value and average.
func (t *tensors) exchange() launch {
	n := t.value.bytes / 4
	return launch{"exchange", [3]int{ceil(n, 256), 1, 1}, [3]int{256, 1, 1}, 0, &exchangeArgs{len: int64(n), a: t.value, b: t.average}}
}

// makePrecise makes the precise statistics of what was measured.
func (t *tensors) makePrecise() launch {
	return launch{"norm_measured", [3]int{ceil(t.channels, 128), 1, 1}, [3]int{128, 1, 1}, 0,
		&measuredArgs{c: int32(t.channels), measured: t.measured, mean: t.precise, variance: t.precise.at(t.channels, 4)}}
}

func (t *tensors) param(name string) *buffer { return t.value.at(t.at(name), 4) }

func (t *tensors) at(name string) int {
	i, ok := t.place[name]
	if !ok {
		panic("gpu: no tensor " + name)
	}
	return i
}

// normState is where a normalisation stands: its sums, and what they were made
// into.
type normState struct {
	sums, gsums          *buffer // (C, parts, 2)
	parts, gparts        int
	scale, shift         *buffer
	mean, istd           *buffer
	ca, cb, cc           *buffer
	forward, backwardSet bool
}

// convState is what a convolution leaves for its gradient.
type convState struct {
	weights *buffer // of the primary: the sum of the branches
	y       *buffer
}

// newPlan maps a model's program to launches that go by a state. feed makes the first of them, which puts
// the batch into x (B, C, H, W, 32) and y (B, 32).
func newPlan(t *tensors, m *graph.Model, n int, purpose purpose, state *buffer, feed func(p *plan)) (*plan, error) {
	prog, err := m.Program(purpose != evaluating)
	if err != nil {
		return nil, err
	}
	p := &plan{tensors: t, steps: state, n: n, blocks: (n + lanes - 1) / lanes, purpose: purpose,
		norms: map[*graph.Norm]*normState{}, convs: map[*graph.Conv]*convState{}}
	for i, s := range prog.Values {
		p.values = append(p.values, p.floats(fmt.Sprintf("value %d", i), p.blocks*size(s)*lanes))
	}
	p.x, p.y = p.values[graph.Pictures], p.floats("labels", p.blocks*lanes)
	p.partsBuffer = p.floats("parts", 0)
	p.loss, p.correct = p.floats("loss", p.blocks*lanes), p.floats("correct", p.blocks*lanes)
	feed(p)
	for _, i := range prog.Instructions {
		p.instruction(i, prog.Values)
		if _, loss := i.(*graph.CrossEntropy); loss && purpose == measuring {
			break // the gradients follow
		}
	}
	return p, nil
}

// buffer is memory for this plan, for as long as its launches need it.
func (p *plan) buffer(name string, bytes int) *buffer {
	b := &buffer{name: name, bytes: bytes, first: -1}
	p.buffers = append(p.buffers, b)
	return b
}

func (p *plan) floats(name string, n int) *buffer  { return p.buffer(name, 4*n) }
func (p *plan) doubles(name string, n int) *buffer { return p.buffer(name, 8*n) }

func (p *plan) launch(kernel string, grid, block [3]int, shared int, args any) {
	p.launches = append(p.launches, launch{kernel, grid, block, shared, args})
}

func (p *plan) value(v graph.Value) *buffer {
	if v == graph.None {
		return nil
	}
	return p.values[v]
}

func (p *plan) instruction(i graph.Instruction, sizes []space.Shape) {
	switch i := i.(type) {
	case *graph.Conv:
		p.conv(i)
	case *graph.ConvGrad:
		p.convGrad(i)
	case *graph.Add:
		s := sizes[i.Z]
		z := p.norm(i.ZNorm)
		a := &unitArgs{c: int32(s.C), h: int32(s.H), w: int32(s.W), n: int32(p.n), z: p.value(i.Z), scale: z.scale, shift: z.shift,
			x: p.value(i.X), out: p.value(i.Out)}
		if i.XNorm != nil {
			x := p.norm(i.XNorm)
			a.xscale, a.xshift = x.scale, x.shift
		}
		p.rows("add", s.H, s.C, a)
	case *graph.AddGrad:
		s, z := sizes[i.Of.Z], p.state(i.Of.ZNorm)
		a := &unitArgs{c: int32(s.C), h: int32(s.H), w: int32(s.W), n: int32(p.n), parts: int32(p.blocks * s.H), z: p.value(i.Of.Z), x: p.value(i.Of.X),
			out: p.value(i.Of.Out), g: p.value(i.G), gx: p.value(i.GX), sums: p.gradSums(z, s.C, p.blocks*s.H)}
		if i.Of.XNorm != nil {
			a.xsums = p.gradSums(p.state(i.Of.XNorm), s.C, p.blocks*s.H)
		}
		p.rows("add_grad", s.H, s.C, a)
	case *graph.MaxPool:
		s, z := sizes[i.Z], p.norm(i.Norm)
		p.rows("max_pool", (s.H+1)/2, s.C, &unitArgs{c: int32(s.C), h: int32(s.H), w: int32(s.W), n: int32(p.n), z: p.value(i.Z), scale: z.scale, shift: z.shift, out: p.value(i.Out)})
	case *graph.MaxPoolGrad:
		s, z := sizes[i.Of.Z], p.state(i.Of.Norm)
		p.rows("max_pool_grad", s.H, s.C, &unitArgs{c: int32(s.C), h: int32(s.H), w: int32(s.W), n: int32(p.n), parts: int32(p.blocks * s.H),
			z: p.value(i.Of.Z), scale: z.scale, shift: z.shift, out: p.value(i.Of.Out), g: p.value(i.G), gx: p.value(i.GX), sums: p.gradSums(z, s.C, p.blocks*s.H)})
	case *graph.Pool:
		s := sizes[i.Z]
		p.pooled = p.floats("pooled", p.blocks*s.C*lanes)
		a := &unitArgs{c: int32(s.C), h: int32(s.H), w: int32(s.W), n: int32(p.n), z: p.value(i.Z), out: p.pooled}
		if i.Norm != nil {
			z := p.norm(i.Norm)
			a.scale, a.shift = z.scale, z.shift
		}
		p.launch("pool", [3]int{1, s.C, p.blocks}, [3]int{32, 8, 1}, 4*8*32, a)
	case *graph.PoolGrad:
		s := sizes[i.Of.Z]
		a := &unitArgs{c: int32(s.C), h: int32(s.H), w: int32(s.W), n: int32(p.n), parts: int32(p.blocks * s.H), z: p.value(i.Of.Z), g: p.dpooled, gx: p.value(i.GX)}
		if i.Of.Norm != nil {
			z := p.state(i.Of.Norm)
			a.scale, a.shift, a.sums = z.scale, z.shift, p.gradSums(z, s.C, p.blocks*s.H)
		}
		p.rows("pool_grad", s.H, s.C, a)
	case *graph.Linear:
		p.logits = p.floats("logits", p.blocks*i.Classes*lanes)
		p.launch("linear", [3]int{ceil(i.Classes, 8), p.blocks, 1}, [3]int{32, 8, 1}, 0, p.head(i))
	case *graph.CrossEntropy:
		a := &headArgs{c: 0, k: int32(p.logits.bytes / (4 * p.blocks * lanes)), blocks: int32(p.blocks), gain: 1 / float32(p.n), logits: p.logits, labels: p.y, loss: p.loss, correct: p.correct}
		if p.purpose == training {
			p.dlogits = p.buffer("dlogits", p.logits.bytes)
			a.dlogits = p.dlogits
		}
		p.launch("cross_entropy", [3]int{p.blocks, 1, 1}, [3]int{32, 8, 1}, 4*3*8*32, a)
	case *graph.LinearGrad:
		p.dpooled = p.buffer("dpooled", p.pooled.bytes)
		a := p.head(i.Of)
		a.dlogits, a.dpool = p.dlogits, p.dpooled
		a.dweight, a.dbias = p.grad.at(p.at(i.Of.Name+".weight"), 4), p.grad.at(p.at(i.Of.Name+".bias"), 4)
		p.launch("linear_grad", [3]int{ceil(i.Of.C, 8), p.blocks, 1}, [3]int{32, 8, 1}, 0, a)
		p.launch("linear_weight_grad", [3]int{ceil(i.Of.C, 8), i.Of.Classes, 1}, [3]int{32, 8, 1}, 0, a)
	case *graph.Sum:
		n := int64(p.value(i.To).bytes / 4)
		p.launch("sum", [3]int{int(min(ceil(int(n), 256), 2048)), 1, 1}, [3]int{256, 1, 1}, 0, &sumArgs{len: n, to: p.value(i.To), a: p.value(i.A), b: p.value(i.B)})
	default:
		panic(fmt.Sprintf("gpu: no kernel for %T", i))
	}
}

func (p *plan) head(l *graph.Linear) *headArgs {
	return &headArgs{c: int32(l.C), k: int32(l.Classes), blocks: int32(p.blocks), pool: p.pooled, logits: p.logits,
		weight: p.param(l.Name + ".weight"), bias: p.param(l.Name + ".bias")}
}

// rows launches a kernel of which a warp takes a row of a channel.
func (p *plan) rows(kernel string, h, c int, args any) {
	p.launch(kernel, [3]int{ceil(h, 8), c, p.blocks}, [3]int{32, 8, 1}, 0, args)
}

func (p *plan) state(n *graph.Norm) *normState {
	s := p.norms[n]
	if s == nil {
		s = &normState{scale: p.floats(n.Name+" scale", n.C), shift: p.floats(n.Name+" shift", n.C)}
		p.norms[n] = s
	}
	return s
}

// norm returns the normalisation with scale and shift made.
func (p *plan) norm(n *graph.Norm) *normState {
	s := p.state(n)
	if s.forward {
		return s
	}
	s.forward = true
	mean, variance := p.at(n.Name+meanName), p.at(n.Name+varianceName)
	stats := p.stats
	if p.purpose == evaluating && p.precise != nil {
		stats = p.precise
	}
	a := &normArgs{c: int32(n.C), parts: int32(s.parts), epsilon: graph.Epsilon, factor: float32(n.Factor), count: float64(p.n * n.Positions),
		weight: p.param(n.Name + ".weight"), bias: p.param(n.Name + ".bias"),
		runningMean: stats.at(mean, 4), runningVar: stats.at(variance, 4),
		scale: s.scale, shift: s.shift, state: p.steps}
	switch p.purpose {
	case training:
		s.mean, s.istd = p.doubles(n.Name+" mean", n.C), p.doubles(n.Name+" istd", n.C)
		a.training, a.sums, a.mean, a.istd = 1, s.sums, s.mean, s.istd
	case measuring:
		a.training, a.sums, a.measured = 1, s.sums, p.measured.at(3*mean, 8)
	}
	p.launch("norm", [3]int{n.C, 1, 1}, [3]int{128, 1, 1}, 8*32, a)
	return s
}

// normGrad makes the coefficients of the gradient of what is normalised.
func (p *plan) normGrad(n *graph.Norm) *normState {
	s := p.state(n)
	if s.ca != nil {
		return s
	}
	s.ca, s.cb, s.cc = p.floats(n.Name+" ca", n.C), p.floats(n.Name+" cb", n.C), p.floats(n.Name+" cc", n.C)
	p.launch("norm_grad", [3]int{n.C, 1, 1}, [3]int{128, 1, 1}, 8*32, &normGradArgs{c: int32(n.C), parts: int32(s.gparts), count: float64(p.n * n.Positions),
		sums: s.gsums, weight: p.param(n.Name + ".weight"), mean: s.mean, istd: s.istd,
		dweight: p.grad.at(p.at(n.Name+".weight"), 4), dbias: p.grad.at(p.at(n.Name+".bias"), 4), ca: s.ca, cb: s.cb, cc: s.cc})
	return s
}

// gradSums is the room for the sums of a normalisation's gradient.
func (p *plan) gradSums(s *normState, c, parts int) *buffer {
	s.gparts, s.gsums = parts, p.floats("gsums", 2*c*parts)
	return s.gsums
}

// primary and secondary are the names of a convolution's weights.
func primary(c *graph.Conv) string {
	if c.Secondary {
		return c.Name + ".primary.weight"
	}
	return c.Name + ".weight"
}

func secondary(c *graph.Conv) string { return c.Name + ".secondary.weight" }

// channels is a grouped convolution as a kernel sees it.
type channels struct {
	h, w, oh, ow   int
	groups, ci, co int
	kh, kw, stride int
	interleaved    bool
	transposed     bool
}

func primaryOf(g kernel.Geometry) channels {
	oh, ow := g.Size()
	return channels{h: g.H, w: g.W, oh: oh, ow: ow, groups: g.L, ci: g.Ci, co: g.Co, kh: g.KH, kw: g.KW, stride: g.Stride, interleaved: g.Interleaved}
}

// secondaryOf is the second stage: partition m has channel m of each of the first.
func secondaryOf(g kernel.Geometry) channels {
	oh, ow := g.Size()
	return channels{h: oh, w: ow, oh: oh, ow: ow, groups: g.Co, ci: g.L, co: g.L, kh: 1, kw: 1, stride: 1, interleaved: true}
}

// gradient is the convolution that makes the gradient of c's input from that of
// its output.
func (c channels) gradient() channels {
	c.h, c.w, c.oh, c.ow = c.oh, c.ow, c.h, c.w
	c.ci, c.co = c.co, c.ci
	c.transposed = true
	return c
}

// conv launches a convolution's kernel, with args's buffers, and returns the
// number of parts that its sums have.
func (p *plan) grouped(c channels, a *convArgs, sums func(parts int) *buffer) {
	a.H, a.W, a.OH, a.OW = int32(c.h), int32(c.w), int32(c.oh), int32(c.ow)
	a.groups, a.ci, a.co, a.n = int32(c.groups), int32(c.ci), int32(c.co), int32(p.n)
	a.interleaved, a.transposed = flag(c.interleaved), flag(c.transposed)
	a.kh, a.kw, a.stride = int32(c.kh), int32(c.kw), int32(c.stride)
	k := chooseConv(c, inputOf(a))
	a.turned, a.up = flag(k.turned), flag(c.transposed)
	strips := ceil(c.oh, k.rows) * ceil(c.ow, k.columns)
	if sums != nil {
		a.parts = int32(p.blocks * strips)
		a.sums = sums(int(a.parts))
	}
	a.tiles, a.chunk = int32(k.tiles), int32(k.chunk)
	warps := k.tiles * k.strips
	p.launch(k.kernel, [3]int{ceil(strips, k.strips), c.groups * k.blocks, p.blocks}, [3]int{32, warps, 1}, 4*k.chunk*c.kh*c.kw*k.tiles*k.stride, a)
}

// convChoice is the kernel of a convolution and how its work is cut.
type convChoice struct {
	kernel        string
	turned        bool
	rows, columns int // of a thread's pixels
	tiles, strips int // of a block's warps
	blocks        int // that share a group's output channels
	chunk, stride int // input channels in shared memory; floats of a tile there
}

// Shared memory holds the weights of some input channels; more than this leaves
// room for few blocks.
const sharedFloats = 6 << 10

// input is what a convolution reads, as in kernels/conv.h.
type input string

const (
	plain    input = "_plain"
	normal   input = "_normal"
	gradient input = "_gradient"
)

func inputOf(a *convArgs) input {
	switch {
	case a.x2 != nil:
		return gradient
	case a.scale == nil && a.low == asItIs:
		return plain
	}
	return normal
}

// chooseConv must agree with conv.cu on what a thread does.
func chooseConv(c channels, in input) convChoice {
	k := convChoice{rows: 1, columns: 4, blocks: ceil(c.co, 4), tiles: 1, strips: 8}
	size := ""
	switch {
	case c.kh == 3 && c.kw == 3 && c.stride <= 2:
		size = "3x3"
	case c.kh == 1 && c.kw == 1 && c.stride == 1:
		size = "1x1"
	default:
		if in == plain {
			in = normal // which reads it as it is, too
		}
		k.kernel = "conv_any" + string(in)
		return k
	}
	tiles := ceil(c.co, 8)
	co := ceil(c.co, tiles)
	k.blocks = ceil(tiles, 8)
	k.tiles = ceil(tiles, k.blocks)
	k.strips = 8 / k.tiles
	k.columns = 8
	k.rows = 1
	switch {
	case co <= 2:
		k.rows = 4
	case co <= 4:
		k.rows = 2
	}
	k.turned = c.transposed
	if c.stride == 2 {
		size += "s2"
		if c.transposed {
			size += "_up"
			k.turned, k.rows = false, 2
			if co > 4 {
				k.columns = 4
			}
		} else {
			if in == plain {
				in = normal
			}
			if co <= 2 {
				k.rows = 2
			}
		}
	}
	k.stride = co
	if co > 2 {
		k.stride = ceil(co, 4) * 4
	}
	k.chunk = max(1, min(c.ci, sharedFloats/(c.kh*c.kw*k.tiles*k.stride)))
	k.kernel = fmt.Sprintf("conv%s%s_co%d", size, in, co)
	return k
}

func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

func size(s space.Shape) int { return s.C * s.H * s.W }

func ceil(a, b int) int { return (a + b - 1) / b }

var asItIs = float32(math.Inf(-1))

// conv is the forward pass.
func (p *plan) conv(c *graph.Conv) {
	st := &convState{weights: p.param(primary(c))}
	p.convs[c] = st
	if c.Branches > 1 {
		n := c.PrimaryLen()
		st.weights = p.floats(c.Name+" sum", n)
		p.launch("sum_branches", [3]int{ceil(n, 256), 1, 1}, [3]int{256, 1, 1}, 0, &branchesArgs{len: int64(n), branches: int32(c.Branches), from: p.param(primary(c)), to: st.weights})
	}
	a := &convArgs{x: p.value(c.X), w: st.weights, z: p.value(c.Z), low: asItIs}
	if c.In != nil {
		in := p.norm(c.In)
		a.scale, a.shift, a.low = in.scale, in.shift, 0
	}
	if c.Rectified {
		a.low = 0
	}
	var sums func(parts int) *buffer
	if c.Out != nil && p.purpose != evaluating {
		out := p.state(c.Out)
		sums = func(parts int) *buffer {
			out.parts, out.sums = parts, p.floats(c.Name+" sums", 2*c.Geometry.Out()*parts)
			return out.sums
		}
	}
	if !c.Secondary {
		p.grouped(primaryOf(c.Geometry), a, sums)
		return
	}
	st.y = p.floats(c.Name+" y", p.blocks*c.OutLen()/kernel.Lanes*lanes)
	a.z = st.y
	p.grouped(primaryOf(c.Geometry), a, nil)
	b := &convArgs{x: st.y, w: p.param(secondary(c)), z: p.value(c.Z), low: asItIs}
	if c.Between {
		b.low = 0
	}
	p.grouped(secondaryOf(c.Geometry), b, sums)
}

// convGrad is the backward pass: of the secondary convolution, then of the
// primary one. The gradient of what it makes is ca·g + cb·z + cc, formed while it
// is read.
func (p *plan) convGrad(i *graph.ConvGrad) {
	c, st := i.Of, p.convs[i.Of]
	in, inNormal := &convArgs{x: p.value(i.G), low: asItIs}, &weightGradArgs{g: p.value(i.G), low: asItIs}
	if c.Out != nil {
		n := p.normGrad(c.Out)
		in.x2, in.scale, in.scale2, in.shift = p.value(c.Z), n.ca, n.cb, n.cc
		inNormal.z, inNormal.ca, inNormal.cb, inNormal.cc = p.value(c.Z), n.ca, n.cb, n.cc
	}
	if c.Secondary {
		g := secondaryOf(c.Geometry)
		w := *inNormal
		w.x = st.y
		if c.Between {
			w.low = 0
		}
		p.weightGrad(g, &w, secondary(c), 1)
		dy := p.floats(c.Name+" dy", st.y.bytes/4)
		a := *in
		a.w, a.z = p.param(secondary(c)), dy
		if c.Between {
			a.mx = st.y
		}
		p.grouped(g.gradient(), &a, nil)
		in, inNormal = &convArgs{x: dy, low: asItIs}, &weightGradArgs{g: dy, low: asItIs}
	}
	w := *inNormal
	w.x = p.value(c.X)
	if c.In != nil {
		n := p.state(c.In)
		w.scale, w.shift, w.low = n.scale, n.shift, 0
	}
	if c.Rectified {
		w.low = 0
	}
	p.weightGrad(primaryOf(c.Geometry), &w, primary(c), c.Branches)
	if i.GX == graph.None {
		return
	}
	in.w, in.z = st.weights, p.value(i.GX)
	var sums func(parts int) *buffer
	if c.In != nil {
		n := p.state(c.In)
		in.mx, in.mscale, in.mshift = p.value(c.X), n.scale, n.shift
		sums = func(parts int) *buffer { return p.gradSums(n, c.Geometry.In(), parts) }
	}
	if c.Rectified {
		in.mx = p.value(c.X)
	}
	p.grouped(primaryOf(c.Geometry).gradient(), in, sums)
}

// The tiles that weight_grad.cu has, (output, input channels).
var (
	tiles3x3 = [][2]int{{1, 1}, {2, 2}, {3, 3}, {4, 2}}
	tiles1x1 = [][2]int{{2, 2}, {4, 4}, {8, 8}}
)

// weightGrad launches the gradient of a convolution's weights and has the update
// add its parts.
func (p *plan) weightGrad(c channels, a *weightGradArgs, name string, branches int) {
	kernel, choices, kk := "", [][2]int(nil), c.kh*c.kw
	perTile := kk // kernel positions of a task
	switch {
	case c.kh == 3 && c.kw == 3 && c.stride <= 2:
		kernel, choices = map[int]string{1: "weight_grad3x3", 2: "weight_grad3x3s2"}[c.stride], tiles3x3
	case c.kh == 1 && c.kw == 1 && c.stride == 1:
		kernel, choices = "weight_grad1x1", tiles1x1
	default:
		kernel, choices, perTile = "weight_grad_any", [][2]int{{4, 4}}, 1
	}
	// A tile costs its multiply–adds and, about four times as much each, what it
	// reads.
	cost := func(t [2]int) int {
		return ceil(c.co, t[0]) * ceil(c.ci, t[1]) * (t[0]*t[1]*perTile + 4*(t[0]+t[1]*min(c.kh, perTile)))
	}
	tile := slices.MinFunc(choices, func(a, b [2]int) int { return cost(a) - cost(b) })
	tasks := c.groups * ceil(c.co, tile[0]) * ceil(c.ci, tile[1]) * kk / perTile
	// Enough warps to fill a large device, but no fewer than 32 positions each:
	// adding the lanes up costs about as much as ten positions.
	rows := max(1, c.oh*p.blocks*tasks/warpsWanted, ceil(32, c.ow))
	rows = min(rows, c.oh)
	chunks := p.blocks * ceil(c.oh, rows)
	a.H, a.W, a.OH, a.OW = int32(c.h), int32(c.w), int32(c.oh), int32(c.ow)
	a.groups, a.ci, a.co, a.n = int32(c.groups), int32(c.ci), int32(c.co), int32(p.n)
	a.interleaved, a.rows, a.tasks = flag(c.interleaved), int32(rows), int32(tasks)
	a.kh, a.kw, a.stride = int32(c.kh), int32(c.kw), int32(c.stride)
	n := c.groups * c.co * c.ci * kk
	a.dw = p.partsBuffer.at(p.partFloats, 4)
	p.launch(fmt.Sprintf("%s_%dx%d", kernel, tile[0], tile[1]), [3]int{ceil(tasks, 8), chunks, 1}, [3]int{32, 8, 1}, 0, a)
	for b := range branches { // a summand has the gradient of the sum
		p.segment(name, b*n, n, p.partFloats, n, chunks)
	}
	p.partFloats += n * chunks
	p.partsBuffer.bytes = 4 * p.partFloats
}

// warpsWanted is about half of what a large device holds at once.
const warpsWanted = 4096

// segment has the update take n values of a parameter from the sums of parts, or
// from grad if there are none.
func (p *plan) segment(name string, from, n, part, stride, parts int) {
	var decays int32
	for _, q := range p.params {
		if q.Name == name {
			decays = flag(q.Decays)
		}
	}
	const most = 256
	for i := 0; i < n; i += most {
		s := segment{from: int64(p.at(name) + from + i), len: int32(min(most, n-i)), decays: decays, part: -1, stride: int32(stride), parts: int32(parts)}
		if parts > 0 {
			s.part = int64(part + i)
		}
		p.segments = append(p.segments, s)
	}
}

// update ends a training step: the parameters that have no parts yet, and the
// update of all.
func (p *plan) update(momentum, decay float32, segments, rates *buffer) {
	done := map[int64]bool{}
	for _, s := range p.segments {
		done[s.from] = true
	}
	for _, q := range p.params {
		if !done[int64(p.at(q.Name))] {
			p.segment(q.Name, 0, len(q.Value), 0, 0, 0)
		}
	}
	segments.bytes = len(bytesOf(p.segments))
	p.launch("update", [3]int{len(p.segments), 1, 1}, [3]int{256, 1, 1}, 0, &updateArgs{momentum: momentum, decay: decay,
		segments: segments, parts: p.partsBuffer, rates: rates, state: p.steps, value: p.tensors.value, velocity: p.velocity, average: p.average, grad: p.grad})
}

// finish ends every plan: it counts the step, or what is right of the batch.
func (p *plan) finish(losses, corrects *buffer) {
	p.launch("finish", [3]int{1, 1, 1}, [3]int{256, 1, 1}, 8*32, &finishArgs{lanes: int32(p.blocks * lanes), batch: int32(p.n), evaluating: flag(p.purpose != training),
		loss: p.loss, correct: p.correct, state: p.steps, losses: losses, corrects: corrects})
}

// traffic is the bytes that the launches read and write, each buffer of a launch
// once.
func (p *plan) traffic() int {
	n := 2 * 4 * p.partFloats // the shares of the weights' gradients, made and added up
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

// align is what every buffer begins at a multiple of.
const align = 256

// arrange finds a place for every buffer: those that are kept one after the other,
// the others where they fit, largest first, so that no two that are needed at the
// same time overlap. It returns the bytes in all; addr is from 0.
func (p *plan) arrange() int {
	for i, l := range p.launches {
		visit(l.args, func(_ uintptr, b *buffer) {
			if b = b.root(); b.kept {
				return // others may use it, too
			}
			if b.first < 0 {
				b.first = i
			}
			b.last = i
		})
	}
	size := func(b *buffer) uint64 { return uint64(ceil(b.bytes, align) * align) }
	var placed []*buffer
	end := uint64(0)
	order := slices.Clone(p.buffers)
	slices.SortStableFunc(order, func(a, b *buffer) int {
		if a.kept != b.kept {
			return int(flag(b.kept)) - int(flag(a.kept))
		}
		return b.bytes - a.bytes
	})
	for _, b := range order {
		if b.first < 0 && !b.kept {
			continue // the program has a value that nobody uses
		}
		b.addr = 0
		for _, o := range placed { // they are in the order of their places
			together := b.kept || o.kept || b.first <= o.last && o.first <= b.last
			if together && b.addr < o.addr+size(o) && o.addr < b.addr+size(b) {
				b.addr = o.addr + size(o)
			}
		}
		end = max(end, b.addr+size(b))
		at, _ := slices.BinarySearchFunc(placed, b, func(x, y *buffer) int {
			if x.addr != y.addr {
				return int(int64(x.addr) - int64(y.addr))
			}
			return strings.Compare(x.name, y.name)
		})
		placed = slices.Insert(placed, at, b)
	}
	return int(end)
}
