package graph

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"igcsearch/space"
	"igcsearch/trainer/kernel"
)

// head is the memory of the network's end. Its three ops share it.
type head struct {
	run    *runtime
	h      kernel.Head   // sizes
	calls  []kernel.Head // one for each block
	inNorm *norm         // of x
	plain  bool          // x is read as it is, and inNorm changes nothing

	pool, dpool      *tensor.Dense // (B, C, 16)
	logits, dlogits  *tensor.Dense // (B, K, 16)
	loss             []float64     // (B, 16)
	dw, db           *tensor.Dense // (K, C), (K)
	dwParts, dbParts []float32     // (B, K, C), (B, K)
	gx               *tensor.Dense // (B, 1, C, 1, 16), the same at every position
}

func newHead(r *runtime, in space.Shape, k int, inNorm *norm) *head {
	h, w, c := in.H, in.W, in.C
	b, plain := r.b.blocks, inNorm == nil
	if plain {
		inNorm = r.unit(c)
	}
	sizes := kernel.Head{Precision: r.precision, H: h, W: w, C: c, K: k, Linear: plain}
	o := &head{run: r, plain: plain, h: sizes, calls: make([]kernel.Head, b), inNorm: inNorm,
		pool: r.tensor(b, c, kernel.Lanes), logits: r.tensor(b, k, kernel.Lanes),
		loss: r.arena.Doubles(b * kernel.Lanes)}
	for i := range o.calls {
		call := &o.calls[i]
		*call = sizes
		call.Scale, call.Shift = inNorm.scale, inNorm.shift
		call.Pool, call.Logits = at(o.pool.Float32s(), i, c*kernel.Lanes), at(o.logits.Float32s(), i, k*kernel.Lanes)
		call.Loss = at(o.loss, i, kernel.Lanes)
	}
	return o
}

// training adds the memory for gradients.
func (h *head) training() {
	a, b := h.run.arena, h.run.b.blocks
	h.dlogits, h.dpool = h.run.tensor(b, h.h.K, kernel.Lanes), h.run.tensor(b, h.h.C, kernel.Lanes)
	h.dw, h.db = h.run.tensor(h.h.K, h.h.C), h.run.tensor(h.h.K)
	h.dwParts, h.dbParts = a.Floats(b*h.h.K*h.h.C), a.Floats(b*h.h.K)
	h.gx = h.run.tensor(b, 1, h.h.C, 1, kernel.Lanes)
	open, openX := a.Floats(b*h.h.C*kernel.Lanes), a.Floats(b*h.h.C*kernel.Lanes)
	for i := range h.calls {
		k := &h.calls[i]
		k.DLogits = at(h.dlogits.Float32s(), i, k.K*kernel.Lanes)
		k.DPool = at(h.dpool.Float32s(), i, k.C*kernel.Lanes)
		k.DWL, k.DBias = at(h.dwParts, i, k.K*k.C), at(h.dbParts, i, k.K)
		k.Open, k.OpenX = at(open, i, k.C*kernel.Lanes), at(openX, i, k.C*kernel.Lanes)
		k.GX = at(h.gx.Float32s(), i, k.C*kernel.Lanes)
		k.GSum, k.GXSum = at(h.inNorm.gsum, i, k.C), at(h.inNorm.gxsum, i, k.C)
	}
}

// used returns the calls of the blocks in use.
func (h *head) used() []kernel.Head {
	used := h.calls[:h.run.b.used()]
	for b := range used {
		used[b].Valid = h.run.b.valid(b)
	}
	return used
}

// pool: (x, [weight, bias]) → (B, C, 16), the mean over positions of
// max(0, normalised x), or of x as it is.
type pool struct {
	base
	*head
}

func newPool(h *head) *pool {
	in := []tensor.Shape{h.run.activation(h.h.H, h.h.C, h.h.W)}
	if !h.plain {
		in = append(in, tensor.Shape{h.h.C}, tensor.Shape{h.h.C})
	}
	return &pool{newBase("pool", h.pool.Shape(), in...), h}
}

func (o *pool) Do(v ...G.Value) (G.Value, error) {
	if !o.plain {
		o.inNorm.forward(f32(v[1]), f32(v[2]))
	}
	used := o.used()
	for b := range used {
		k := &used[b]
		k.X = at(f32(v[0]), b, k.Precision.Floats(k.C*k.H*k.W*kernel.Lanes))
	}
	o.run.team.PoolForward(used)
	return o.pool, nil
}

func (o *pool) bytes() int { return 4 * o.in[0].TotalSize() }

func (o *pool) DiffWRT(n int) []bool { return all(n) }

func (o *pool) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d := &poolGrad{o.gradBase(o.gx.Shape(), o.out, o.out), o}
	node, err := G.ApplyOp(d, append(append(G.Nodes{}, in...), out, grad)...)
	if err != nil {
		return nil, err
	}
	p := parts{of: node}
	if o.plain {
		return G.Nodes{node}, nil
	}
	return append(G.Nodes{node}, p.norm("pool", o.inNorm)...), p.err
}

// poolGrad computes gx, the gradient of x, as convGrad does, but for one position
// only, since all positions of a picture have the same, and before the mask of the
// ReLU, which differs between positions. The op that reads gx masks it by z.
//
//	(the pool's inputs…, pool, gradient of pool) → gx (B, 1, C, 1, 16)
type poolGrad struct {
	base
	of *pool
}

func (d *poolGrad) Do(...G.Value) (G.Value, error) {
	o := d.of
	o.run.team.PoolBackward(o.used())
	if !o.plain {
		o.inNorm.backward()
	}
	return o.gx, nil
}

// linear: (pool, weight, bias) → logits (B, K, 16).
type linear struct {
	base
	*head
}

func newLinear(h *head) *linear {
	return &linear{newBase("fc", h.logits.Shape(), h.pool.Shape(), tensor.Shape{h.h.K, h.h.C}, tensor.Shape{h.h.K}), h}
}

func (o *linear) Do(v ...G.Value) (G.Value, error) {
	used := o.used()
	for b := range used {
		used[b].WL, used[b].Bias = f32(v[1]), f32(v[2])
	}
	o.run.team.LinearForward(used)
	return o.logits, nil
}

func (o *linear) DiffWRT(n int) []bool { return all(n) }

func (o *linear) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d := &linearGrad{o.gradBase(o.dpool.Shape(), o.out, o.out), o}
	node, err := G.ApplyOp(d, append(append(G.Nodes{}, in...), out, grad)...)
	if err != nil {
		return nil, err
	}
	p := parts{of: node}
	return G.Nodes{node, p.add("fc.dweight", o.dw), p.add("fc.dbias", o.db)}, p.err
}

// linearGrad: (pool, weight, bias, logits, dlogits) → dpool (B, C, 16), with the
// gradients of weight and bias beside it.
type linearGrad struct {
	base
	of *linear
}

func (d *linearGrad) Do(v ...G.Value) (G.Value, error) {
	o, used := d.of, d.of.used()
	for b := range used {
		used[b].WL = f32(v[1])
	}
	o.run.team.LinearBackward(used)
	kernel.SumBlocks(o.dw.Float32s(), o.dwParts[:len(used)*o.h.K*o.h.C])
	kernel.SumBlocks(o.db.Float32s(), o.dbParts[:len(used)*o.h.K])
	return o.dpool, nil
}

// crossEntropy: (logits, labels) → the mean loss of the batch, nats. Labels
// are (B, 16) class numbers.
type crossEntropy struct {
	base
	*head
	mean  *G.F32
	total float64 // the mean in full precision
}

func newCrossEntropy(h *head) *crossEntropy {
	labels := tensor.Shape{h.run.b.blocks, kernel.Lanes}
	return &crossEntropy{base: newBase("cross_entropy", tensor.Shape{}, h.logits.Shape(), labels),
		head: h, mean: G.NewF32(0)}
}

// Do also writes the gradient of the logits to dlogits: it needs the same
// exponentials.
func (o *crossEntropy) Do(v ...G.Value) (G.Value, error) {
	used := o.used()
	for b := range used {
		used[b].Labels, used[b].Gain = at(f32(v[1]), b, kernel.Lanes), 1/float32(o.run.b.n)
	}
	o.run.team.CrossEntropy(used)
	o.total = 0
	for b := range used {
		for _, l := range used[b].Loss[:used[b].Valid] {
			o.total += l
		}
	}
	o.total /= float64(o.run.b.n)
	*o.mean = G.F32(o.total)
	return o.mean, nil
}

func (o *crossEntropy) DiffWRT(int) []bool { return []bool{true, false} }

// SymDiff ignores the gradient from above: it is the constant 1 of the cost.
func (o *crossEntropy) SymDiff(_ G.Nodes, out, _ *G.Node) (G.Nodes, error) {
	p := parts{of: out}
	return G.Nodes{p.add("cross_entropy.dlogits", o.dlogits), nil}, p.err
}
