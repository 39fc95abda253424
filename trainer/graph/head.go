package graph

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"igcsearch/trainer/kernel"
)

// head is the memory of the network's end, which its three ops share.
type head struct {
	run    *runtime
	h      kernel.Head   // sizes
	calls  []kernel.Head // one for each block
	inNorm *norm

	pool, logits, dlogits, dpool *tensor.Dense // (B, C or K, 16)
	loss                         []float64     // (B, 16)
	dw, db                       *tensor.Dense
	dwParts, dbParts             []float32 // (B, …)
	gx                           *tensor.Dense
}

func newHead(r *runtime, h, w, c, k int, inNorm *norm) *head {
	b := r.b.blocks
	return &head{run: r, h: kernel.Head{H: h, W: w, C: c, K: k}, calls: make([]kernel.Head, b), inNorm: inNorm,
		pool: r.tensor(b, c, kernel.Lanes), logits: r.tensor(b, k, kernel.Lanes), loss: r.arena.Doubles(b * kernel.Lanes)}
}

// training adds the memory for gradients.
func (h *head) training() {
	a, b := h.run.arena, h.run.b.blocks
	h.dlogits, h.dpool = h.run.tensor(b, h.h.K, kernel.Lanes), h.run.tensor(b, h.h.C, kernel.Lanes)
	h.dw, h.db = h.run.tensor(h.h.K, h.h.C), h.run.tensor(h.h.K)
	h.dwParts, h.dbParts = a.Floats(b*h.h.K*h.h.C), a.Floats(b*h.h.K)
	h.gx = h.run.gradient(tensor.Shape{b, h.h.C, h.h.H, h.h.W, kernel.Lanes})
}

// call returns the kernel's view of block b.
func (h *head) call(b int) *kernel.Head {
	k := &h.calls[b]
	k.H, k.W, k.C, k.K, k.Valid = h.h.H, h.h.W, h.h.C, h.h.K, h.run.b.valid(b)
	k.Pool, k.Logits = at(h.pool.Float32s(), b, k.C*kernel.Lanes), at(h.logits.Float32s(), b, k.K*kernel.Lanes)
	return k
}

// pool: (x, weight, bias) → (B, C, 16), the mean over positions of
// max(0, normalised x).
type pool struct {
	base
	*head
	x     []float32
	block func(block, thread int)
	back  func(block, thread int)
}

func newPool(h *head) *pool {
	c := tensor.Shape{h.h.C}
	o := &pool{base: newBase("pool", h.pool.Shape(), tensor.Shape{h.run.b.blocks, h.h.C, h.h.H, h.h.W, kernel.Lanes}, c, c), head: h}
	o.block, o.back = o.forwardBlock, o.backwardBlock
	return o
}

func (o *pool) Do(v ...G.Value) (G.Value, error) {
	o.x = f32(v[0])
	o.inNorm.forward(f32(v[1]), f32(v[2]))
	o.run.team.Do(o.run.b.used(), o.block)
	return o.pool, nil
}

func (o *pool) input(b int) *kernel.Head {
	k := o.call(b)
	k.X = at(o.x, b, k.C*k.H*k.W*kernel.Lanes)
	k.Scale, k.Shift = o.inNorm.scale, o.inNorm.shift
	return k
}

func (o *pool) forwardBlock(b, _ int) {
	k := o.input(b)
	o.run.isa.PoolForward(k)
}

func (o *pool) backwardBlock(b, _ int) {
	k := o.input(b)
	k.DPool, k.GX = at(o.dpool.Float32s(), b, k.C*kernel.Lanes), at(o.gx.Float32s(), b, k.C*k.H*k.W*kernel.Lanes)
	k.GSum, k.GXSum = at(o.inNorm.gsum, b, k.C), at(o.inNorm.gxsum, b, k.C)
	o.run.isa.PoolBackward(k)
}

func (o *pool) DiffWRT(int) []bool { return []bool{true, true, true} }

func (o *pool) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d := &poolGrad{newBase("pool.grad", o.gx.Shape(), append(append([]tensor.Shape{}, o.in...), o.out, o.out)...), o}
	node, err := G.ApplyOp(d, append(append(G.Nodes{}, in...), out, grad)...)
	if err != nil {
		return nil, err
	}
	p := parts{of: node}
	return G.Nodes{node, p.add("pool.dweight", dense(o.inNorm.dWeight, o.h.C)), p.add("pool.dbias", dense(o.inNorm.dBias, o.h.C))}, p.err
}

// poolGrad's value is the deferred gradient of x, as convGrad's.
type poolGrad struct {
	base
	of *pool
}

func (d *poolGrad) Do(v ...G.Value) (G.Value, error) {
	o := d.of
	o.x = f32(v[0])
	o.run.team.Do(o.run.b.used(), o.back)
	o.inNorm.backward()
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
	for b := range o.run.b.used() {
		k := o.call(b)
		k.WL, k.Bias = f32(v[1]), f32(v[2])
		o.run.isa.LinearForward(k)
	}
	return o.logits, nil
}

func (o *linear) DiffWRT(int) []bool { return []bool{true, true, true} }

func (o *linear) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	d := &linearGrad{newBase("fc.grad", o.dpool.Shape(), append(append([]tensor.Shape{}, o.in...), o.out, o.out)...), o}
	node, err := G.ApplyOp(d, append(append(G.Nodes{}, in...), out, grad)...)
	if err != nil {
		return nil, err
	}
	p := parts{of: node}
	return G.Nodes{node, p.add("fc.dweight", o.dw), p.add("fc.dbias", o.db)}, p.err
}

type linearGrad struct {
	base
	of *linear
}

func (d *linearGrad) Do(v ...G.Value) (G.Value, error) {
	o, used := d.of, d.of.run.b.used()
	for b := range used {
		k := o.call(b)
		k.WL, k.DLogits = f32(v[1]), at(f32(v[4]), b, k.K*kernel.Lanes)
		k.DWL, k.DBias = at(o.dwParts, b, k.K*k.C), at(o.dbParts, b, k.K)
		k.DPool = at(o.dpool.Float32s(), b, k.C*kernel.Lanes)
		o.run.isa.LinearBackward(k)
	}
	kernel.SumBlocks(o.dw.Float32s(), o.dwParts[:used*o.h.K*o.h.C])
	kernel.SumBlocks(o.db.Float32s(), o.dbParts[:used*o.h.K])
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
	return &crossEntropy{base: newBase("cross_entropy", tensor.Shape{}, h.logits.Shape(), tensor.Shape{h.run.b.blocks, kernel.Lanes}), head: h, mean: G.NewF32(0)}
}

// Do also leaves the gradient of the logits in dlogits: the exponentials are
// the same.
func (o *crossEntropy) Do(v ...G.Value) (G.Value, error) {
	o.total = 0
	for b := range o.run.b.used() {
		k := o.call(b)
		k.Labels, k.Loss, k.Gain = at(f32(v[1]), b, kernel.Lanes), at(o.loss, b, kernel.Lanes), 1/float32(o.run.b.n)
		if o.dlogits != nil {
			k.DLogits = at(o.dlogits.Float32s(), b, k.K*kernel.Lanes)
		}
		kernel.CrossEntropy(k)
		for _, l := range k.Loss[:k.Valid] {
			o.total += l
		}
	}
	o.total /= float64(o.run.b.n)
	*o.mean = G.F32(o.total)
	return o.mean, nil
}

func (o *crossEntropy) DiffWRT(int) []bool { return []bool{true, false} }

// SymDiff: the gradient that comes from above is the constant 1 of the cost.
func (o *crossEntropy) SymDiff(_ G.Nodes, out, _ *G.Node) (G.Nodes, error) {
	p := parts{of: out}
	return G.Nodes{p.add("cross_entropy.dlogits", o.dlogits), nil}, p.err
}
