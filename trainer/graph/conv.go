package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"igcsearch/trainer/kernel"
)

// conv is a convolution or a whole product of convolutions, for an IGC block
// x' = P·Ws·Pᵀ·Wp·x, with the normalisation and ReLU of its input.
//
//	(x, [weight, bias,] wp [, ws…]) → z
//
// x is (B, H, In, W, 16): an activation, or the z of a convolution, whose
// normalisation has the parameters weight and bias. z is (B, OH, Out, OW, 16).
// The gradient is in convGrad, below.
type conv struct {
	base
	geo      kernel.Geometry
	run      *runtime
	x        value
	outNorm  *norm // of z; nil: none
	branches int   // wp (branches·Out, Ci, KH, KW): their sum is the kernel
	z        *tensor.Dense
	sum      []float32     // of the branches
	calls    []kernel.Conv // one for each block
}

// keepFrom is the smallest M at which the output of the primary convolutions is
// kept for the backward pass. To compute it again costs 9·M multiply–adds a
// value; to keep it costs a write and a read. With it kept, a step was measured
// 1.02 times as fast at M = 2, 1.05 at 3, 1.15 at 6 and 1.2 at 16. Below 4 that is
// not worth three quarters more memory.
const keepFrom = 4

// activation is the shape of a tensor of c channels. Its last dimension counts floats of memory, of which bfloat16
// needs half as many.
func (r *runtime) activation(h, c, w int) tensor.Shape {
	return tensor.Shape{r.b.blocks, h, c, w, r.precision.Floats(kernel.Lanes)}
}

// pictures is the shape of the network's input, which is float32 in any precision.
func (r *runtime) pictures(h, c, w int) tensor.Shape {
	return tensor.Shape{r.b.blocks, h, c, w, kernel.Lanes}
}

// newConv makes the op of c. The weights of all its mixes lie in ws, one after the
// other. In training it keeps y from keepFrom on.
func newConv(r *runtime, c *Conv, x value, ws []float32, outNorm *norm, z []float32, training bool) *conv {
	geo, branches := c.Geometry, c.Branches
	oh, ow := geo.Size()
	out := r.activation(oh, geo.Out(), ow)
	shapes := []tensor.Shape{r.activation(geo.H, geo.In(), geo.W)}
	if x.pictures() {
		shapes[0] = r.pictures(geo.H, geo.In(), geo.W)
	}
	if x.norm != nil {
		shapes = append(shapes, tensor.Shape{geo.In()}, tensor.Shape{geo.In()})
	}
	shapes = append(shapes, tensor.Shape{branches * geo.Out(), geo.Ci, geo.KH, geo.KW})
	for _, m := range geo.Mixes {
		shapes = append(shapes, tensor.Shape{geo.Out(), m.K, 1, 1})
	}
	o := &conv{base: newBase(c.Name, out, shapes...), geo: geo, run: r, x: x, outNorm: outNorm, branches: branches,
		z: dense(z, out...), calls: make([]kernel.Conv, r.b.blocks)}
	if branches > 1 {
		o.sum = r.arena.Floats(geo.PrimaryLen())
	}
	n := geo.OutLen()
	var y []float32
	if len(geo.Mixes) > 0 && training && geo.Ci >= keepFrom {
		y = r.arena.Floats(r.b.blocks * n)
	}
	for b := range o.calls {
		k := &o.calls[b]
		k.Geometry, k.WS, k.Z = geo, ws, at(z, b, n)
		if y != nil {
			k.Y = at(y, b, n)
		}
		if training && outNorm != nil {
			k.Sum, k.SumSq = at(outNorm.sum, b, geo.Out()), at(outNorm.sumSq, b, geo.Out())
		}
		if n := o.inNorm(); n != nil {
			k.Scale, k.Shift, k.Linear = n.scale, n.shift, c.Linear
		}
	}
	return o
}

// inNorm is the normalisation of x before its ReLU; nil if x is read as it is.
func (o *conv) inNorm() *norm {
	if o.x.rectified {
		return o.run.unit(o.geo.In())
	}
	return o.x.norm
}

func (o *conv) Do(v ...G.Value) (G.Value, error) {
	if o.x.norm != nil {
		o.x.norm.forward(f32(v[1]), f32(v[2]))
	}
	if o.sum != nil {
		kernel.SumBlocks(o.sum, f32(v[o.weights()]))
	}
	o.run.team.Forward(o.bind(v))
	return o.z, nil
}

// weights is the index of wp among the inputs.
func (o *conv) weights() int {
	if o.x.norm != nil {
		return 3
	}
	return 1
}

// bind points the calls at the inputs and returns those of the blocks in use.
func (o *conv) bind(v []G.Value) []kernel.Conv {
	used, w := o.calls[:o.run.b.used()], o.weights()
	for b := range used {
		k := &used[b]
		k.Valid, k.X, k.WP = o.run.b.valid(b), at(f32(v[0]), b, o.geo.InLen()), o.sum
		if o.sum == nil {
			k.WP = f32(v[w])
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
		d[i] = i > 0 || !o.x.pictures() // the gradient of the pictures is not needed
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
	all := G.Nodes{node}
	if o.x.pictures() {
		all[0] = nil
	}
	all = append(all, p.norm(o.name, o.x.norm)...)
	all = append(all, p.add(o.name+".dwp", d.dwp))
	dws := d.dws
	for i, m := range o.geo.Mixes {
		n := o.geo.MixLen(m)
		all = append(all, p.add(fmt.Sprintf("%s.dws%d", o.name, i+1), dense(dws[:n:n], o.geo.Out(), m.K, 1, 1)))
		dws = dws[n:]
	}
	return all, p.err
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

// norm adds the gradients of a normalisation's weight and bias; none of nil.
func (p *parts) norm(name string, n *norm) G.Nodes {
	if n == nil {
		return nil
	}
	return G.Nodes{p.add(name+".dweight", dense(n.dWeight, n.C)), p.add(name+".dbias", dense(n.dBias, n.C))}
}

// convGrad computes all gradients of a conv.
//
//	(the conv's inputs…, z, g) → gx
//
// g is the gradient of normalised z, masked by its ReLU; where z has no
// normalisation it is the gradient of z itself; from a pool it is that of
// poolGrad. gx is the same for x. If x is normalised, the norm of x holds the
// coefficients that give the gradient of x itself: ca·gx + cb·x + cc.
type convGrad struct {
	base
	of       *conv
	dwp      *tensor.Dense
	dws      []float32     // of all mixes
	gx       *tensor.Dense // the conv's dwp where x has no gradient
	dwpParts []float32     // (B, …)
	dwsParts []float32
	wpt, wst []float32
	gLen     int  // of a block of g
	pooled   bool // g is of a poolGrad: float32, and the same at every position
}

func newConvGrad(o *conv, g *G.Node) *convGrad {
	a, geo, blocks := o.run.arena, o.geo, o.run.b.blocks
	d := &convGrad{of: o,
		dwp:      o.run.tensor(o.branches*geo.Out(), geo.Ci, geo.KH, geo.KW),
		dwpParts: a.Floats(blocks * geo.PrimaryLen()), wpt: a.Floats(geo.PrimaryLen())}
	d.gx = d.dwp
	if n := geo.MixesLen(); n > 0 {
		d.dws, d.dwsParts, d.wst = a.Floats(n), a.Floats(blocks*n), a.Floats(n)
	}
	shape := d.dwp.Shape()
	if !o.x.pictures() {
		shape = o.in[0]
	}
	d.base = o.gradBase(shape, o.out, g.Shape())
	d.gLen = g.Shape().TotalSize() / blocks
	outNorm := o.outNorm
	if outNorm == nil {
		outNorm = o.run.unit(geo.Out()) // dz = g
	}
	_, d.pooled = g.Op().(*poolGrad)
	for b := range o.calls {
		k := &o.calls[b]
		k.WPT, k.WST = d.wpt, d.wst
		k.CA, k.CB, k.CC = outNorm.ca, outNorm.cb, outNorm.cc
		if d.pooled {
			k.GScale, k.GShift = outNorm.scale, outNorm.shift
		}
		k.DWP, k.DWS = at(d.dwpParts, b, geo.PrimaryLen()), at(d.dwsParts, b, geo.MixesLen())
		if n := o.inNorm(); n != nil {
			k.GSum, k.GXSum = at(n.gsum, b, geo.In()), at(n.gxsum, b, geo.In())
		}
	}
	return d
}

// memory lets gx overwrite g, row by row, where both have the same shape.
func (d *convGrad) memory() (floats, over int) {
	o := d.of
	if o.x.pictures() {
		return 0, -1
	}
	over = -1
	if !d.pooled && o.geo.Stride == 1 && o.geo.In() == o.geo.Out() {
		over = len(d.in) - 1
	}
	return o.in[0].TotalSize(), over
}

func (d *convGrad) place(m []float32) {
	d.gx = dense(m, d.out...)
	for b := range d.of.calls {
		d.of.calls[b].GX = at(m, b, d.of.geo.InLen())
	}
}

func (d *convGrad) Do(v ...G.Value) (G.Value, error) {
	o, geo := d.of, d.of.geo
	calls, g := o.bind(v), f32(v[len(v)-1])
	for b := range calls {
		calls[b].G = at(g, b, d.gLen)
	}
	geo.Transpose(d.wpt, d.wst, calls[0].WP, calls[0].WS)
	o.run.team.Backward(calls)
	dwp := d.dwp.Float32s()
	kernel.SumBlocks(dwp[:geo.PrimaryLen()], d.dwpParts[:len(calls)*geo.PrimaryLen()])
	for k := 1; k < o.branches; k++ { // each summand has the gradient of the sum
		copy(dwp[k*geo.PrimaryLen():], dwp[:geo.PrimaryLen()])
	}
	if d.dws != nil {
		kernel.SumBlocks(d.dws, d.dwsParts[:len(calls)*geo.MixesLen()])
	}
	if o.x.norm != nil {
		o.x.norm.backward()
	}
	return d.gx, nil
}

func (d *convGrad) bytes() int {
	n := d.of.bytes() + 4*d.in[len(d.in)-1].TotalSize()
	if !d.of.x.pictures() {
		n += 4 * d.gx.Size()
	}
	return n
}
