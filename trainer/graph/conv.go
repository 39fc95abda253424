package graph

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"igcsearch/trainer/kernel"
)

// conv is the first convolution or a whole IGC block, x' = P·Ws·Pᵀ·Wp·x, with
// the normalisation and ReLU of its input.
//
//	first convolution: (x, wp) → z
//	IGC block:         (x, weight, bias, wp, ws) → z
//
// x is (B, H, In, W, 16): pictures, or the z of the op before, whose
// normalisation has the parameters weight and bias. z is (B, H, Out, W, 16).
type conv struct {
	base
	geo     kernel.Geometry
	run     *runtime
	inNorm  *norm // of x; nil: x is taken as it is
	outNorm *norm // of z
	z       *tensor.Dense
	calls   []kernel.Conv // one for each block
}

// keepFrom is the M from which the output of the primary convolutions is kept
// for the backward pass. Computing it again costs 9·M multiply–adds a value,
// keeping it a write and a read. A step measured with it kept: 1.02 times as
// fast at M = 2, 1.05 at 3, 1.15 at 6, 1.2 at 16; below 4 it is not worth the
// memory, which grows by three quarters.
const keepFrom = 4

func newConv(name string, r *runtime, geo kernel.Geometry, inNorm, outNorm *norm, z []float32) *conv {
	act := func(c int) tensor.Shape { return tensor.Shape{r.b.blocks, geo.H, c, geo.W, kernel.Lanes} }
	wp := tensor.Shape{geo.Out(), geo.Ci, 3, 3}
	in := []tensor.Shape{act(geo.In()), wp}
	if inNorm != nil {
		c := tensor.Shape{geo.In()}
		in = []tensor.Shape{act(geo.In()), c, c, wp, {geo.Out(), geo.L, 1, 1}}
	}
	o := &conv{base: newBase(name, act(geo.Out()), in...), geo: geo, run: r, inNorm: inNorm, outNorm: outNorm,
		z: dense(z, act(geo.Out())...), calls: make([]kernel.Conv, r.b.blocks)}
	n := geo.Out() * geo.H * geo.W * kernel.Lanes
	var y []float32
	if geo.Secondary && outNorm.training && geo.Ci >= keepFrom {
		y = r.arena.Floats(r.b.blocks * n)
	}
	for b := range o.calls {
		k := &o.calls[b]
		k.Geometry, k.Z = geo, at(z, b, n)
		if y != nil {
			k.Y = at(y, b, n)
		}
		if outNorm.training {
			k.Sum, k.SumSq = at(outNorm.sum, b, geo.Out()), at(outNorm.sumSq, b, geo.Out())
		}
		if inNorm != nil {
			k.Scale, k.Shift = inNorm.scale, inNorm.shift
		}
	}
	return o
}

func (o *conv) Do(v ...G.Value) (G.Value, error) {
	if o.inNorm != nil {
		o.inNorm.forward(f32(v[1]), f32(v[2]))
	}
	o.run.team.Forward(o.bind(v))
	return o.z, nil
}

// bind points the calls at the inputs and returns those of the blocks in use.
func (o *conv) bind(v []G.Value) []kernel.Conv {
	used := o.calls[:o.run.b.used()]
	for b := range used {
		k := &used[b]
		k.Valid, k.X = o.run.b.valid(b), at(f32(v[0]), b, o.geo.In()*o.geo.H*o.geo.W*kernel.Lanes)
		if o.inNorm == nil {
			k.WP = f32(v[1])
		} else {
			k.WP, k.WS = f32(v[3]), f32(v[4])
		}
	}
	return used
}

// at returns block b of a tensor with n floats for each block.
func at[T any](s []T, b, n int) []T { return s[b*n : (b+1)*n] }

func (o *conv) bytes() int {
	n := o.in[0].TotalSize() + o.out.TotalSize()
	if o.calls[0].Y != nil {
		n += o.out.TotalSize()
	}
	return 4 * n
}

func (o *conv) DiffWRT(n int) []bool {
	d := make([]bool, n)
	for i := range d {
		d[i] = i > 0 || o.inNorm != nil // nobody wants the gradient of the pictures
	}
	return d
}

// SymDiff adds one op for all gradients, and a part for each.
func (o *conv) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d := newConvGrad(o, grad)
	node, err := G.ApplyOp(d, append(append(G.Nodes{}, in...), out, grad)...)
	if err != nil {
		return nil, err
	}
	p := parts{of: node}
	if o.inNorm == nil {
		return G.Nodes{nil, p.add(o.name+".dwp", d.dwp)}, p.err
	}
	c := o.geo.In()
	return G.Nodes{node,
		p.add(o.name+".dweight", dense(o.inNorm.dWeight, c)), p.add(o.name+".dbias", dense(o.inNorm.dBias, c)),
		p.add(o.name+".dwp", d.dwp), p.add(o.name+".dws", d.dws)}, p.err
}

// parts collects part nodes and the first error.
type parts struct {
	of  *G.Node
	err error
}

func (p *parts) add(name string, value *tensor.Dense) *G.Node {
	n, err := newPart(p.of, name, value)
	if p.err == nil {
		p.err = err
	}
	return n
}

// convGrad computes all gradients of a conv. Its inputs are those of the conv,
// then z, then the gradient of the normalised z masked by its ReLU (g); its
// value is the same for x (gx), in deferred form: the norm of x holds the
// coefficients that make the gradient of x itself out of it. From a pool, g is
// that of poolGrad.
type convGrad struct {
	base
	of       *conv
	dwp, dws *tensor.Dense
	gx       *tensor.Dense // the conv's dwp where x has no gradient
	dwpParts []float32     // (B, …)
	dwsParts []float32
	wpt, wst []float32
	gLen     int // of a block of g
}

func newConvGrad(o *conv, g *G.Node) *convGrad {
	a, geo, blocks := o.run.arena, o.geo, o.run.b.blocks
	d := &convGrad{of: o,
		dwp:      o.run.tensor(geo.Out(), geo.Ci, 3, 3),
		dwpParts: a.Floats(blocks * geo.PrimaryLen()), wpt: a.Floats(geo.PrimaryLen())}
	d.gx = d.dwp
	if geo.Secondary {
		d.dws = o.run.tensor(geo.Out(), geo.L, 1, 1)
		d.dwsParts, d.wst = a.Floats(blocks*geo.SecondaryLen()), a.Floats(geo.SecondaryLen())
	}
	if o.inNorm != nil {
		d.gx = o.run.gradient(o.in[0])
	}
	d.base = newBase(o.name+".grad", d.gx.Shape(), append(append([]tensor.Shape{}, o.in...), o.out, g.Shape())...)
	d.gLen = g.Shape().TotalSize() / blocks
	_, pooled := g.Op().(*poolGrad)
	for b := range o.calls {
		k := &o.calls[b]
		k.WPT, k.WST = d.wpt, d.wst
		k.CA, k.CB, k.CC = o.outNorm.ca, o.outNorm.cb, o.outNorm.cc
		if pooled {
			k.GScale, k.GShift = o.outNorm.scale, o.outNorm.shift
		}
		k.DWP, k.DWS = at(d.dwpParts, b, geo.PrimaryLen()), at(d.dwsParts, b, geo.SecondaryLen())
		if o.inNorm != nil {
			k.GX = at(d.gx.Float32s(), b, geo.In()*geo.H*geo.W*kernel.Lanes)
			k.GSum, k.GXSum = at(o.inNorm.gsum, b, geo.In()), at(o.inNorm.gxsum, b, geo.In())
		}
	}
	return d
}

func (d *convGrad) Do(v ...G.Value) (G.Value, error) {
	o, geo := d.of, d.of.geo
	calls, g := o.bind(v), f32(v[len(v)-1])
	for b := range calls {
		calls[b].G = at(g, b, d.gLen)
	}
	geo.Transpose(d.wpt, d.wst, calls[0].WP, calls[0].WS)
	o.run.team.Backward(calls)
	kernel.SumBlocks(d.dwp.Float32s(), d.dwpParts[:len(calls)*geo.PrimaryLen()])
	if d.dws != nil {
		kernel.SumBlocks(d.dws.Float32s(), d.dwsParts[:len(calls)*geo.SecondaryLen()])
	}
	if o.inNorm != nil {
		o.inNorm.backward()
	}
	return d.gx, nil
}

func (d *convGrad) bytes() int {
	n := d.of.bytes() + 4*d.in[len(d.in)-1].TotalSize()
	if d.of.inNorm != nil {
		n += 4 * d.gx.Size()
	}
	return n
}
