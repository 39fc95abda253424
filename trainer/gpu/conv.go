package gpu

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// convState is what a convolution keeps for its gradient.
type convState struct {
	weights *buffer   // of the primary: the sum of the branches
	y       []*buffer // what each factor but the last wrote, before a ReLU
}

// channels is a grouped convolution as a kernel sees it.
type channels struct {
	h, w, oh, ow   int
	groups, ci, co int
	kh, kw, stride int
	// How far apart the channels of a group lie, as in kernel.Geometry.
	stepIn, stepOut int
	transposed      bool
}

// factorsOf are the convolutions of a product, in the order in which each reads what
// the one before has written: the primary one and its mixes.
func factorsOf(g kernel.Geometry) []channels {
	oh, ow := g.Size()
	list := []channels{{h: g.H, w: g.W, oh: oh, ow: ow, groups: g.L, ci: g.Ci, co: g.Co,
		kh: g.KH, kw: g.KW, stride: g.Stride, stepIn: g.StepIn, stepOut: g.StepOut}}
	for _, m := range g.Mixes {
		list = append(list, channels{h: oh, w: ow, oh: oh, ow: ow, groups: g.Out() / m.K, ci: m.K, co: m.K,
			kh: 1, kw: 1, stride: 1, stepIn: m.Step, stepOut: m.Step})
	}
	return list
}

// flat returns the same convolution with all pixels as one row, which has one end, if
// pixels have no neighbours.
func (c channels) flat() channels {
	if c.kh == 1 && c.kw == 1 && c.stride == 1 {
		c.h, c.w, c.oh, c.ow = 1, c.h*c.w, 1, c.oh*c.ow
	}
	return c
}

// rare reports whether only the simple kernels compute the gradient of a
// convolution's input.
func (p *plan) rare(c channels) bool {
	c = c.gradient()
	return !p.onMatrixUnits(c) && chooseConv(c.flat(), ofTwo).chunk == 0
}

// gradient is the convolution that computes the gradient of c's input from that
// of its output.
func (c channels) gradient() channels {
	c.h, c.w, c.oh, c.ow = c.oh, c.ow, c.h, c.w
	c.ci, c.co = c.co, c.ci
	c.stepIn, c.stepOut = c.stepOut, c.stepIn
	c.transposed = true
	return c
}

// grouped launches a convolution's kernel with the buffers of a. If norm is not nil,
// the kernel also computes sums of its output and ends the normalisation with them.
func (p *plan) grouped(c channels, a *convArgs, norm *normArgs) {
	matrix := p.onMatrixUnits(c)
	if !matrix {
		c = c.flat()
	}
	a.H, a.W, a.OH, a.OW = int32(c.h), int32(c.w), int32(c.oh), int32(c.ow)
	a.groups, a.ci, a.co, a.n = int32(c.groups), int32(c.ci), int32(c.co), int32(p.n)
	a.in, a.out, a.transposed = stepOf(c.stepIn), stepOf(c.stepOut), flag(c.transposed)
	a.kh, a.kw, a.stride = int32(c.kh), int32(c.kw), int32(c.stride)
	if matrix {
		p.groupedTF32(c, a, norm)
		return
	}
	k := chooseConv(c, inputOf(a))
	a.turned, a.up = flag(k.turned), flag(c.transposed)
	strips := ceil(c.oh, k.rows) * ceil(c.ow, k.columns)
	grid := [3]int{ceil(strips, k.strips), c.groups * k.blocks, p.blocks}
	if norm != nil {
		parts := p.blocks * strips
		a.parts, a.norm, a.sums = int32(parts), *norm, p.floats("sums", 2*c.groups*c.co*parts)
		a.norm.counters = p.counter(grid)
	}
	a.tiles, a.chunk = int32(k.tiles), int32(k.chunk)
	warps := k.tiles * k.strips
	shared := max(4*k.chunk*c.kh*c.kw*k.tiles*k.stride+placeBytes*warps, lastBlock)
	p.launch(k.kernel, grid, [3]int{32, warps, 1}, shared, a)
}

// placeBytes is the room in shared memory where a warp keeps the place of its outputs.
const placeBytes = 16

// convChoice is the kernel of a convolution and how its work is divided.
type convChoice struct {
	kernel        string
	turned        bool
	rows, columns int // of a thread's pixels
	tiles, strips int // of a block's warps
	blocks        int // that share a group's output channels
	chunk, stride int // input channels in shared memory, 0 for the simple kernels; floats of a tile there
}

// sharedFloats bounds the weights in shared memory: with more, few blocks would run
// at the same time.
const sharedFloats = 6 << 10

// input is what a convolution reads, as in kernels/conv.h.
type input string

const (
	plain  input = "_plain"
	normal input = "_normal"
	ofTwo  input = "_gradient"
)

func inputOf(a *convArgs) input {
	switch {
	case a.x2 != nil:
		return ofTwo
	case a.scale == nil && a.low == asItIs:
		return plain
	}
	return normal
}

// chooseConv must agree with kernels/conv.cu on what a thread does.
func chooseConv(c channels, in input) convChoice {
	tiles := ceil(c.co, 8)
	co := ceil(c.co, tiles)
	k := convChoice{rows: 1, columns: 4, turned: c.transposed}
	size := ""
	switch {
	case c.kh == 3 && c.kw == 3 && c.stride == 1:
		size = "3x3"
		k.rows = []int{4, 4, 2, 2, 1, 1, 1, 1}[co-1]
		if in == ofTwo {
			k.rows = ceil(k.rows, 2)
		}
	case c.kh == 3 && c.kw == 3 && c.stride == 2 && c.transposed:
		size = "3x3s2_up"
		k.turned, k.rows = false, []int{4, 4, 2, 2, 2, 2, 2, 2}[co-1]
	case c.kh == 3 && c.kw == 3 && c.stride == 2:
		size = "3x3s2"
		k.rows = []int{2, 2, 1, 1, 1, 1, 1, 1}[co-1]
	case c.kh == 1 && c.kw == 1 && c.stride == 1:
		size = "1x1"
		k.columns = []int{16, 16, 8, 8, 8, 8, 8, 8}[co-1]
	}
	anySize := size == "" || c.ow < k.columns
	if in == plain && (anySize || size == "3x3s2") {
		in = normal // there is no plain variant; low says to read it as it is
	}
	if anySize {
		return convChoice{kernel: "conv_any" + string(in), rows: 1, columns: 4, blocks: ceil(c.co, 4), tiles: 1, strips: 8}
	}
	k.blocks = ceil(tiles, 8)
	k.tiles = ceil(tiles, k.blocks)
	// A small block leaves fewer multiprocessors idle at the end of a launch. What a
	// block reads of the weights should serve four warps at least.
	k.strips = ceil(4, k.tiles)
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

// asItIs is the lower bound of what has no ReLU.
var asItIs = float32(math.Inf(-1))

// least is the lower bound of a value that may have a ReLU.
func least(rectified bool) float32 {
	if rectified {
		return 0
	}
	return asItIs
}

// rectified reports whether factor i of c reads the ReLU of its input.
func rectified(c *graph.Conv, i int) bool {
	if i > 0 {
		return i == 1 && c.Between
	}
	return c.Rectified || c.In != nil && !c.Linear
}

// conv launches the forward pass, factor by factor. What lies between two factors stays
// in memory for the gradients of both: at IGCV2-M1K5K6K6, batch 64, a step has 1492 MB in
// place of 952, but reads and writes 7.6 GB in place of the 9.2 that it would take to
// compute it again.
func (p *plan) conv(c *graph.Conv) {
	factors, names := factorsOf(c.Geometry), c.Weights()
	st := &convState{weights: p.param(names[0])}
	p.convs[c] = st
	if c.Branches > 1 {
		n := c.PrimaryLen()
		st.weights = p.floats(c.Name+" sum", n)
		p.launch("sum_branches", [3]int{ceil(n, 256), 1, 1}, [3]int{256, 1, 1}, 0,
			&branchesArgs{len: int64(n), branches: int32(c.Branches), from: p.param(names[0]), to: st.weights})
	}
	x := p.value(c.X)
	for i, f := range factors {
		a := &convArgs{x: x, w: st.weights, low: least(rectified(c, i))}
		if i > 0 {
			a.w = p.param(names[i])
		} else if c.In != nil {
			in := p.state(c.In)
			a.scale, a.shift = in.scale, in.shift
		}
		if i == len(factors)-1 {
			a.z = p.value(c.Z)
			p.grouped(f, a, p.forward(c.Out))
			return
		}
		x = p.floats(fmt.Sprintf("%s y%d", c.Name, i+1), p.blocks*c.OutLen()/kernel.Lanes*lanes)
		a.z, st.y = x, append(st.y, x)
		p.grouped(f, a, nil)
	}
}

// convGrad launches the backward pass, from the last factor to the first.
func (p *plan) convGrad(i *graph.ConvGrad) {
	defer p.bound()
	c, st := i.Of, p.convs[i.Of]
	names := c.Weights()
	g := &gradient{g: p.value(i.G)}
	if c.Out != nil {
		g.z, g.norm = p.value(c.Z), p.state(c.Out)
	}
	for n, f := range slices.Backward(factorsOf(c.Geometry)) {
		low := least(rectified(c, n))
		if n > 0 {
			w := &weightGradArgs{x: st.y[n-1], low: low}
			dy := &convArgs{w: p.param(names[n]), z: p.floats(fmt.Sprintf("%s dy%d", c.Name, n), w.x.bytes/4)}
			if low == 0 {
				dy.mx = w.x
			}
			p.gradients(f, g, dy, nil, w, names[n], 1)
			g = &gradient{g: dy.z}
			continue
		}
		w := &weightGradArgs{x: p.value(c.X), low: low}
		gx := &convArgs{w: st.weights, z: p.value(i.GX), mlow: low}
		if c.In != nil || c.Rectified { // without a ReLU for the sums alone
			gx.mx = w.x
		}
		if c.In != nil {
			s := p.state(c.In)
			w.scale, w.shift = s.scale, s.shift
			if low == 0 {
				gx.mscale, gx.mshift = s.scale, s.shift
			}
		}
		p.gradients(f, g, gx, c.In, w, names[0], c.Branches)
	}
}

// gradient is that of a convolution's output: g, or with a normalisation ca·g +
// cb·z + cc.
type gradient struct {
	g, z *buffer
	norm *normState
}

// gradients launches the gradients of a convolution's input, whose normalisation is
// in, and aside those of its weights. The gradient of a normalised output is made of
// two tensors by the first of them, which reads them anyway and writes it for the
// second.
func (p *plan) gradients(c channels, g *gradient, gx *convArgs, in *graph.Norm, w *weightGradArgs, name string,
	branches int) {
	gx.x, gx.low = g.g, asItIs
	w.g = g.g
	if g.norm != nil {
		gx.x2, gx.scale, gx.scale2, gx.shift = g.z, g.norm.ca, g.norm.cb, g.norm.cc
		w.z, w.ca, w.cb, w.cc = g.z, g.norm.ca, g.norm.cb, g.norm.cc
	}
	weights := func() { p.weightGrad(c, w, name, branches) }
	input := func() { p.grouped(c.gradient(), gx, p.backward(in)) }
	switch {
	case gx.z == nil:
		p.beside(weights)
	case g.norm == nil || p.rare(c):
		p.beside(weights)
		input()
	default:
		gx.dz = p.floats(name+" dz", g.g.bytes/4)
		w.g, w.z, w.ca, w.cb, w.cc = gx.dz, nil, nil, nil, nil
		input()
		p.beside(weights)
	}
}

// tilesOf has the tiles of each family of kernels/weight_grad.cu, as (output, input
// channels).
var tilesOf = map[string][][2]int{
	"3x3_plain":        {{1, 1}, {2, 2}, {3, 1}, {4, 1}, {5, 1}},
	"3x3_gradient":     {{1, 1}, {2, 2}, {4, 1}},
	"3x3s2_plain":      {{1, 1}, {2, 2}, {3, 1}, {4, 1}, {6, 1}},
	"3x3s2_gradient":   {{1, 1}, {2, 2}, {4, 1}},
	"1x1_plain":        {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {7, 7}, {8, 8}},
	"1x1_normal_plain": {{1, 1}, {2, 2}, {4, 4}},
	"_any_plain":       {{1, 1}, {2, 2}, {4, 4}},
	"_any_gradient":    {{1, 1}, {2, 2}, {4, 4}},
}

// weightGradChoice is the kernel of a weights' gradient and how its work is divided.
type weightGradChoice struct {
	kernel string
	tasks  int // tiles of the weights, or of one position of the kernel each
	rows   int // of the output in a part
	across int // tasks of a thread block
}

// chooseWeightGrad picks the kernel that takes the fewest instructions.
func chooseWeightGrad(c channels, blocks int, a *weightGradArgs) weightGradChoice {
	in, read := plain, 1 // instructions to read one value of the output's gradient
	if a.z != nil {
		in, read = ofTwo, 4
	}
	kk := c.kh * c.kw
	family, perTile := "_any", 1 // kernel positions of a task
	columns := 1                 // values of an input channel that a position reads
	switch {
	case c.kh == 3 && c.kw == 3 && c.stride <= 2:
		family, perTile, columns = map[int]string{1: "3x3", 2: "3x3s2"}[c.stride], kk, 3*c.stride
	case c.kh == 1 && c.kw == 1 && c.stride == 1 && in == plain:
		family = "1x1"
		if a.scale != nil {
			family += "_normal"
		}
	}
	family += string(in)
	perGroup := func(t [2]int) int { return ceil(c.co, t[0]) * ceil(c.ci, t[1]) * kk / perTile }
	cost := func(t [2]int) int {
		if t[0] > c.co || t[1] > c.ci {
			return math.MaxInt // a tile lies within a group
		}
		return perGroup(t) * (t[0]*t[1]*perTile + 3*columns*t[1] + read*t[0])
	}
	tile := slices.MinFunc(tilesOf[family], func(a, b [2]int) int { return cmp.Compare(cost(a), cost(b)) })
	k := weightGradChoice{kernel: fmt.Sprintf("weight_grad%s_%dx%d", family, tile[0], tile[1])}
	k.tasks = c.groups * perGroup(tile)
	// There are enough warps to fill a large device, but each has at least 32
	// positions: to add the lanes up costs about as much as ten positions.
	k.rows = min(c.oh, max(1, c.oh*blocks*k.tasks/warpsWanted, ceil(32, c.ow)))
	// The warps of a block are tasks of a group, which read the same channels, or
	// neighbouring parts, which with small groups have rows of the input in common.
	for k.across = 1; k.across < min(8, perGroup(tile)) || 8/k.across > blocks*ceil(c.oh, k.rows); k.across *= 2 {
	}
	return k
}

// weightGrad launches the gradient of a convolution's weights. The update adds its
// parts up.
func (p *plan) weightGrad(c channels, a *weightGradArgs, name string, branches int) {
	k := chooseWeightGrad(c, p.blocks, a)
	parts := p.blocks * ceil(c.oh, k.rows)
	grid, shared := [3]int{ceil(k.tasks, k.across), ceil(parts, 8/k.across), 1}, 0
	if a.z == nil && p.onMatrixUnits(c) {
		k, shared = weightGradTF32(c)
		parts = p.blocks * ceil(c.oh, k.rows)
		grid = [3]int{k.tasks, parts, 1}
	}
	a.H, a.W, a.OH, a.OW = int32(c.h), int32(c.w), int32(c.oh), int32(c.ow)
	a.groups, a.ci, a.co, a.n = int32(c.groups), int32(c.ci), int32(c.co), int32(p.n)
	a.in, a.out, a.rows, a.parts = stepOf(c.stepIn), stepOf(c.stepOut), int32(k.rows), int32(parts)
	a.tasks, a.across = int32(k.tasks), int32(k.across)
	a.kh, a.kw, a.stride = int32(c.kh), int32(c.kw), int32(c.stride)
	n := c.groups * c.co * c.ci * c.kh * c.kw
	a.dw = p.partsBuffer.at(p.partFloats, n*parts, 4)
	p.launch(k.kernel, grid, [3]int{32, 8, 1}, shared, a)
	for b := range branches { // each summand has the gradient of the sum
		p.segment(name, b*n, n, p.partFloats, n, parts)
	}
	p.partFloats += n * parts
	p.partsBuffer.bytes = 4 * p.partFloats
}

// warpsWanted is about half of the warps that a large device holds at once.
const warpsWanted = 4096
