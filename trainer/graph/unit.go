package graph

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"igcsearch/space"
	"igcsearch/trainer/kernel"
)

// add is the end of a residual unit. Without a shortcut it is an activation that
// is written to memory because several ops read it.
//
//	out = max(0, normalised z + b), linear without the max
//
//	(z, weight, bias) → out                      b = 0
//	(z, weight, bias, x) → out                   b = x
//	(z, weight, bias, x, xweight, xbias) → out   b = normalised x
//
// All are (B, H, C, W, 16).
type add struct {
	base
	run     *runtime
	z, x    value // x.norm nil: as it is
	twoArgs bool
	to      *tensor.Dense
	calls   []kernel.Add
	n       int // floats of a block
}

// newAdd makes the op of a, whose output has the shape s.
func newAdd(r *runtime, a *Add, s space.Shape, z value, x *value, out []float32) *add {
	h, c, w := s.H, s.C, s.W
	shape, vector := r.activation(h, c, w), tensor.Shape{c}
	in := []tensor.Shape{shape, vector, vector}
	o := &add{run: r, z: z, to: dense(out, shape...), calls: make([]kernel.Add, r.b.blocks)}
	o.n = r.precision.Floats(h * c * w * kernel.Lanes)
	if x != nil {
		o.x, o.twoArgs = *x, true
		in = append(in, shape)
		if x.norm != nil {
			in = append(in, vector, vector)
		}
	}
	o.base = newBase(a.Name, shape, in...)
	for b := range o.calls {
		k := &o.calls[b]
		*k = kernel.Add{Precision: r.precision, H: h, W: w, C: c, Linear: a.Linear, Scale: z.norm.scale, Shift: z.norm.shift,
			Out: at(out, b, o.n)}
		if o.x.norm != nil {
			k.XScale, k.XShift = o.x.norm.scale, o.x.norm.shift
		}
	}
	return o
}

func (o *add) bind(v []G.Value) []kernel.Add {
	used := o.calls[:o.run.b.used()]
	for b := range used {
		used[b].Z = at(f32(v[0]), b, o.n)
		if o.twoArgs {
			used[b].X = at(f32(v[3]), b, o.n)
		}
	}
	return used
}

func (o *add) Do(v ...G.Value) (G.Value, error) {
	o.z.norm.forward(f32(v[1]), f32(v[2]))
	if o.x.norm != nil {
		o.x.norm.forward(f32(v[4]), f32(v[5]))
	}
	o.run.team.AddForward(o.bind(v))
	return o.to, nil
}

func (o *add) bytes() int {
	n := 2 * o.out.TotalSize()
	if o.twoArgs {
		n += o.out.TotalSize()
	}
	return 4 * n
}

func (o *add) DiffWRT(n int) []bool { return all(n) }

func (o *add) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d := &addGrad{base: o.gradBase(o.out, o.out, grad.Shape()), of: o}
	d.gLen = grad.Shape().TotalSize() / o.run.b.blocks
	_, d.pooled = grad.Op().(*poolGrad)
	for b := range o.calls {
		k, c := &o.calls[b], o.calls[b].C
		k.Pooled, k.GSum, k.GZSum = d.pooled, at(o.z.norm.gsum, b, c), at(o.z.norm.gxsum, b, c)
		if n := o.x.norm; n != nil {
			k.GXSum = at(n.gxsum, b, c)
		}
	}
	node, err := G.ApplyOp(d, append(append(G.Nodes{}, in...), out, grad)...)
	if err != nil {
		return nil, err
	}
	p := parts{of: node}
	grads := append(G.Nodes{node}, p.norm(o.name, o.z.norm)...)
	if o.twoArgs {
		grads = append(append(grads, node), p.norm(o.name+".shortcut", o.x.norm)...)
	}
	return grads, p.err
}

// addGrad computes gx, the gradient of both terms: that of out, masked by the
// ReLU.
//
//	(the add's inputs…, out, gradient of out) → gx
type addGrad struct {
	base
	of     *add
	gx     *tensor.Dense
	gLen   int  // of a block of g
	pooled bool // as in convGrad
}

func (d *addGrad) memory() (floats, over int) {
	if d.pooled {
		return d.out.TotalSize(), -1
	}
	return d.out.TotalSize(), len(d.in) - 1
}

func (d *addGrad) place(m []float32) {
	d.gx = dense(m, d.out...)
	for b := range d.of.calls {
		d.of.calls[b].GX = at(m, b, d.of.n)
	}
}

func (d *addGrad) Do(v ...G.Value) (G.Value, error) {
	o, g := d.of, f32(v[len(v)-1])
	calls := o.bind(v)
	for b := range calls {
		calls[b].G = at(g, b, d.gLen)
	}
	o.run.team.AddBackward(calls)
	if n := o.x.norm; n != nil { // both terms have the same gradient
		copy(n.gsum, o.z.norm.gsum)
		n.backward()
	}
	o.z.norm.backward()
	return d.gx, nil
}

func (d *addGrad) bytes() int { return d.of.bytes() + 4*d.in[len(d.in)-1].TotalSize() }

// maxPool: (z, weight, bias) → the largest of 3×3 positions of
// max(0, normalised z), stride 2.
type maxPool struct {
	base
	run     *runtime
	z       value
	to      *tensor.Dense
	calls   []kernel.Max
	nx, nut int // floats of a block, in and out
}

func newMaxPool(r *runtime, name string, in space.Shape, z value, out []float32) *maxPool {
	h, c, w := in.H, in.C, in.W
	vector := tensor.Shape{c}
	shape := r.activation((h+1)/2, c, (w+1)/2)
	o := &maxPool{base: newBase(name, shape, r.activation(h, c, w), vector, vector), run: r, z: z,
		to: dense(out, shape...), calls: make([]kernel.Max, r.b.blocks),
		nx: r.precision.Floats(h * c * w * kernel.Lanes), nut: shape.TotalSize() / r.b.blocks}
	for b := range o.calls {
		o.calls[b] = kernel.Max{Precision: r.precision, H: h, W: w, C: c, Scale: z.norm.scale, Shift: z.norm.shift,
			Out: at(out, b, o.nut)}
	}
	return o
}

func (o *maxPool) bind(v []G.Value) []kernel.Max {
	used := o.calls[:o.run.b.used()]
	for b := range used {
		used[b].X = at(f32(v[0]), b, o.nx)
	}
	return used
}

func (o *maxPool) Do(v ...G.Value) (G.Value, error) {
	o.z.norm.forward(f32(v[1]), f32(v[2]))
	o.run.team.MaxForward(o.bind(v))
	return o.to, nil
}

func (o *maxPool) bytes() int { return 4 * (o.in[0].TotalSize() + o.out.TotalSize()) }

func (o *maxPool) DiffWRT(n int) []bool { return all(n) }

func (o *maxPool) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d := &maxPoolGrad{base: o.gradBase(o.in[0], o.out, grad.Shape()), of: o}
	for b := range o.calls {
		k := &o.calls[b]
		k.GSum, k.GXSum = at(o.z.norm.gsum, b, k.C), at(o.z.norm.gxsum, b, k.C)
	}
	node, err := G.ApplyOp(d, append(append(G.Nodes{}, in...), out, grad)...)
	if err != nil {
		return nil, err
	}
	p := parts{of: node}
	return append(G.Nodes{node}, p.norm(o.name, o.z.norm)...), p.err
}

// maxPoolGrad computes gx, the gradient of z, as convGrad does.
//
//	(the maxPool's inputs…, out, gradient of out) → gx
type maxPoolGrad struct {
	base
	of *maxPool
	gx *tensor.Dense
}

func (d *maxPoolGrad) memory() (floats, over int) { return d.out.TotalSize(), -1 }

func (d *maxPoolGrad) place(m []float32) {
	d.gx = dense(m, d.out...)
	for b := range d.of.calls {
		d.of.calls[b].GX = at(m, b, d.of.nx)
	}
}

func (d *maxPoolGrad) Do(v ...G.Value) (G.Value, error) {
	calls, g := d.of.bind(v), f32(v[len(v)-1])
	for b := range calls {
		calls[b].G = at(g, b, d.of.nut)
	}
	d.of.run.team.MaxBackward(calls)
	d.of.z.norm.backward()
	return d.gx, nil
}

func (d *maxPoolGrad) bytes() int { return d.of.bytes() + 4*d.out.TotalSize() }

// sum is the addition that Gorgonia's differentiation makes where several ops
// read a value. It adds their gradients by our kernels, and overwrites one that is
// not needed any more.
type sum struct {
	run *runtime
	n   int
	to  *tensor.Dense
}

func (o *sum) memory() (floats, over int) { return o.n, 0 }

func (o *sum) place(m []float32) { o.to = dense(m, o.n) }

func (o *sum) Do(v ...G.Value) (G.Value, error) {
	to, a, b := o.to.Float32s(), f32(v[0]), f32(v[1])
	switch {
	case &to[0] == &b[0]:
		a, b = b, a
	case &to[0] != &a[0]:
		copy(to, a)
	}
	o.run.team.Sum(o.run.precision, to, b)
	return o.to, nil
}

func (o *sum) bytes() int { return 3 * 4 * o.n }

func all(n int) []bool {
	d := make([]bool, n)
	for i := range d {
		d[i] = true
	}
	return d
}
