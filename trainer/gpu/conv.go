package gpu

import (
	"fmt"
	"math"
	"slices"

	"igcsearch/space"
	"igcsearch/trainer/graph"
	"igcsearch/trainer/kernel"
)

// convState is what a convolution keeps for its gradient.
type convState struct {
	weights *buffer // of the primary: the sum of the branches
	y       *buffer
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
	return channels{h: g.H, w: g.W, oh: oh, ow: ow, groups: g.L, ci: g.Ci, co: g.Co,
		kh: g.KH, kw: g.KW, stride: g.Stride, interleaved: g.Interleaved}
}

// secondaryOf is the secondary convolution: its partition m has channel m of each
// primary partition.
func secondaryOf(g kernel.Geometry) channels {
	oh, ow := g.Size()
	return channels{h: oh, w: ow, oh: oh, ow: ow, groups: g.Co, ci: g.L, co: g.L,
		kh: 1, kw: 1, stride: 1, interleaved: true}
}

// gradient is the convolution that computes the gradient of c's input from that
// of its output.
func (c channels) gradient() channels {
	c.h, c.w, c.oh, c.ow = c.oh, c.ow, c.h, c.w
	c.ci, c.co = c.co, c.ci
	c.transposed = true
	return c
}

// grouped launches a convolution's kernel with the buffers of a. If sums is not
// nil, the kernel also computes sums of its output, in so many parts; sums returns
// the memory for them.
func (p *plan) grouped(c channels, a *convArgs, sums func(parts int) *buffer) {
	if c.kh == 1 && c.kw == 1 && c.stride == 1 {
		// Pixels have no neighbours, so all of them can be one row, which has one end.
		c.h, c.w, c.oh, c.ow = 1, c.h*c.w, 1, c.h*c.w
	}
	k := chooseConv(c, inputOf(a))
	a.H, a.W, a.OH, a.OW = int32(c.h), int32(c.w), int32(c.oh), int32(c.ow)
	a.groups, a.ci, a.co, a.n = int32(c.groups), int32(c.ci), int32(c.co), int32(p.n)
	a.interleaved, a.transposed = flag(c.interleaved), flag(c.transposed)
	a.kh, a.kw, a.stride = int32(c.kh), int32(c.kw), int32(c.stride)
	a.turned, a.up = flag(k.turned), flag(c.transposed)
	strips := ceil(c.oh, k.rows) * ceil(c.ow, k.columns)
	if sums != nil {
		a.parts = int32(p.blocks * strips)
		a.sums = sums(int(a.parts))
	}
	a.tiles, a.chunk = int32(k.tiles), int32(k.chunk)
	warps := k.tiles * k.strips
	shared := 0
	if k.chunk > 0 {
		shared = 4*k.chunk*c.kh*c.kw*k.tiles*k.stride + placeBytes*warps
	}
	p.launch(k.kernel, [3]int{ceil(strips, k.strips), c.groups * k.blocks, p.blocks}, [3]int{32, warps, 1}, shared, a)
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
	chunk, stride int // input channels in shared memory; floats of a tile there
}

// sharedFloats bounds the weights in shared memory: with more, few blocks would run
// at the same time.
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
		if in == gradient {
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

// asItIs is the lower bound of an input without a ReLU.
var asItIs = float32(math.Inf(-1))

// conv launches the forward pass.
func (p *plan) conv(c *graph.Conv) {
	st := &convState{weights: p.param(primary(c))}
	p.convs[c] = st
	if c.Branches > 1 {
		n := c.PrimaryLen()
		st.weights = p.floats(c.Name+" sum", n)
		p.launch("sum_branches", [3]int{ceil(n, 256), 1, 1}, [3]int{256, 1, 1}, 0,
			&branchesArgs{len: int64(n), branches: int32(c.Branches), from: p.param(primary(c)), to: st.weights})
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

// convGrad launches the backward pass, first of the secondary convolution, then of
// the primary one. The kernels compute the gradient of z, ca·g + cb·z + cc, while
// they read g and z.
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

// The tiles of kernels/weight_grad.cu, as (output, input channels).
var (
	tiles3x3 = [][2]int{{1, 1}, {2, 2}, {3, 3}, {4, 2}}
	tiles1x1 = [][2]int{{2, 2}, {4, 4}, {8, 8}}
)

// weightGrad launches the gradient of a convolution's weights. The update adds its
// parts up.
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
	// The cost of a tile is its multiply–adds and four times the values that it
	// reads.
	cost := func(t [2]int) int {
		return ceil(c.co, t[0]) * ceil(c.ci, t[1]) * (t[0]*t[1]*perTile + 4*(t[0]+t[1]*min(c.kh, perTile)))
	}
	tile := slices.MinFunc(choices, func(a, b [2]int) int { return cost(a) - cost(b) })
	tasks := c.groups * ceil(c.co, tile[0]) * ceil(c.ci, tile[1]) * kk / perTile
	// There are enough warps to fill a large device, but each has at least 32
	// positions: to add the lanes up costs about as much as ten positions.
	rows := max(1, c.oh*p.blocks*tasks/warpsWanted, ceil(32, c.ow))
	rows = min(rows, c.oh)
	chunks := p.blocks * ceil(c.oh, rows)
	a.H, a.W, a.OH, a.OW = int32(c.h), int32(c.w), int32(c.oh), int32(c.ow)
	a.groups, a.ci, a.co, a.n = int32(c.groups), int32(c.ci), int32(c.co), int32(p.n)
	a.interleaved, a.rows, a.tasks = flag(c.interleaved), int32(rows), int32(tasks)
	a.kh, a.kw, a.stride = int32(c.kh), int32(c.kw), int32(c.stride)
	n := c.groups * c.co * c.ci * kk
	a.dw = p.partsBuffer.at(p.partFloats, 4)
	kernel = fmt.Sprintf("%s_%dx%d", kernel, tile[0], tile[1])
	p.launch(kernel, [3]int{ceil(tasks, 8), chunks, 1}, [3]int{32, 8, 1}, 0, a)
	for b := range branches { // each summand has the gradient of the sum
		p.segment(name, b*n, n, p.partFloats, n, chunks)
	}
	p.partFloats += n * chunks
	p.partsBuffer.bytes = 4 * p.partFloats
}

// warpsWanted is about half of the warps that a large device holds at once.
const warpsWanted = 4096
