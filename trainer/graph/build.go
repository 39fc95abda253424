package graph

import (
	"errors"
	"fmt"
	"sync"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"igcsearch/space"
	"igcsearch/trainer/kernel"
)

// builder makes both graphs and the program in one walk over the layers.
type builder struct {
	m           *Model
	train, eval side
	params      G.Nodes // of the training graph
	factor      float64 // of the running statistics
}

// side is one of the two graphs.
type side struct {
	g     *G.ExprGraph
	run   *half
	out   map[int]value      // of each layer; −1 is the pictures
	nodes map[string]*G.Node // inputs and parameters by name
}

// value is the output of a layer.
type value struct {
	node *G.Node
	at   Value // in the program
	norm *norm // the op that reads the value applies it; nil: it is read as it is
	// raw is set if no ReLU follows: only an add may read it.
	raw bool
	// rectified is set if a ReLU follows, but no norm: only a convolution may
	// read it.
	rectified bool
}

// pictures reports whether the value is the network's input.
func (v value) pictures() bool { return v.at == Pictures }

// inputs are the names of the norm's parameters.
func (v value) inputs() []string {
	if v.norm == nil {
		return nil
	}
	return []string{v.norm.Name + ".weight", v.norm.Name + ".bias"}
}

// description is the norm in the program; nil if there is none.
func (v value) description() *Norm {
	if v.norm == nil {
		return nil
	}
	return v.norm.Norm
}

func (b *builder) sides() []*side { return []*side{&b.train, &b.eval} }

func (b *builder) build() error {
	m, r, in := b.m, b.m.run, b.m.Net.Input()
	b.train.run, b.eval.run = &m.train, &m.eval
	m.Program.value(in)
	for _, s := range b.sides() {
		s.g, s.nodes = G.NewGraph(), map[string]*G.Node{}
		pictures := s.leaf("input", m.input, r.pictures(in.H, in.C, in.W)...)
		s.out = map[int]value{-1: {node: pictures, at: Pictures}}
	}
	readers := map[int]int{}
	b.factor = RunningFactor(m.Net)
	for _, l := range m.Net.Layers {
		readers[l.From]++
		if l.Kind == space.Add {
			readers[l.Shortcut]++
		}
	}
	for i, l := range m.Net.Layers {
		err := b.layer(i, l)
		if err == nil && b.train.out[i].norm != nil && readers[i] > 1 {
			err = b.activation(i, l)
		}
		if err != nil {
			return fmt.Errorf("layer %s: %w", l.Name, err)
		}
	}
	last := len(m.Net.Layers) - 1
	b.forward(&CrossEntropy{})
	for _, s := range b.sides() {
		s.leaf("labels", m.labels, r.b.blocks, kernel.Lanes)
		s.run.cost = newCrossEntropy(s.run.head)
		if err := s.apply(last, value{at: None}, s.run.cost, s.out[last].node, "labels"); err != nil {
			return err
		}
	}
	return b.compile(b.train.out[last].node, b.eval.out[last].node)
}

// differentiating is held while a graph is differentiated. Gorgonia adds constants that all graphs share, and computes
// the hash of such a constant when it is first needed, without a lock.
var differentiating sync.Mutex

// compile differentiates the training graph and makes the executors. The roots
// are the losses of both graphs.
func (b *builder) compile(train, eval *G.Node) error {
	m, r, kind := b.m, b.m.run, b.m.options.Executor
	differentiating.Lock()
	grads, err := G.Grad(train, b.params...)
	differentiating.Unlock()
	if err != nil {
		return fmt.Errorf("differentiate: %w", err)
	}
	if m.train.exec, err = newExecutor(kind, r, b.train.g, append(G.Nodes{train}, grads...)...); err != nil {
		return err
	}
	if m.eval.exec, err = newExecutor(kind, r, b.eval.g, eval); err != nil {
		return err
	}
	if m.options.Precise {
		if m.measure, err = newExecutor(kind, r, b.train.g, train); err != nil {
			return err
		}
	}
	for i, g := range grads {
		p, ok := g.Op().(*part)
		if !ok {
			return fmt.Errorf("the gradient of %s is %v", m.Params[i].Name, g)
		}
		m.Params[i].Grad = f32(p.value)
	}
	return m.Program.differentiate()
}

// forward adds an instruction to the program.
func (b *builder) forward(i Instruction) {
	b.m.Program.Forward = append(b.m.Program.Forward, i)
}

// memory holds an activation of the given shape. Both graphs share it.
func (b *builder) memory(s space.Shape) []float32 {
	return b.m.run.arena.Floats(b.m.run.activation(s.H, s.C, s.W).TotalSize())
}

// layer adds layer i to both graphs and to the program.
func (b *builder) layer(i int, l space.Layer) error {
	switch l.Kind {
	case space.Conv, space.IGC:
		return b.conv(i, l)
	case space.Add:
		return b.add(i, l)
	case space.MaxPool:
		return b.maxPool(i, l)
	case space.Pool:
		return b.pool(i, l)
	case space.Linear:
		return b.linear(i, l)
	}
	return fmt.Errorf("no op for kind %v", l.Kind)
}

// geometry returns the kernel's view of a convolution.
func geometry(l space.Layer, p kernel.Precision) kernel.Geometry {
	g := kernel.Geometry{Precision: p, Pictures: l.From < 0, H: l.In.H, W: l.In.W, KH: l.KH, KW: l.KW, Stride: l.Stride,
		L: l.Groups, Ci: l.In.C / l.Groups, Co: l.Out.C / l.Groups, StepIn: l.StepIn, StepOut: l.StepOut,
		Between: l.Between}
	for _, m := range l.Mixes {
		g.Mixes = append(g.Mixes, kernel.Mix(m))
	}
	return g
}

func (b *builder) conv(i int, l space.Layer) error {
	r, from := b.m.run, b.train.out[l.From]
	geo := geometry(l, r.precision)
	c := &Conv{Name: l.Name, weights: l.WeightNames(), Geometry: geo, Branches: l.Branches, X: from.at, In: from.description(),
		Linear: from.raw, Rectified: from.rectified, Z: b.m.Program.value(l.Out)}
	b.forward(c)
	weights := c.weights
	b.param(weights[0], geo.Ci*geo.KH*geo.KW, true, l.Branches*geo.Out(), geo.Ci, geo.KH, geo.KW)
	ws := r.arena.Floats(geo.MixesLen())
	for i, rest := 0, ws; i < len(geo.Mixes); i++ {
		n := geo.MixLen(geo.Mixes[i])
		b.paramOver(rest[:n:n], weights[1+i], geo.Mixes[i].K, true, geo.Out(), geo.Mixes[i].K, 1, 1)
		rest = rest[n:]
	}
	norms := map[*side]*norm{}
	if l.Norm {
		c.Out = &Norm{Name: l.NormName(), C: geo.Out(), Positions: l.Out.H * l.Out.W, Factor: b.factor}
		norms[&b.train], norms[&b.eval] = b.norm(c.Out)
	}
	z := b.memory(l.Out)
	for _, s := range b.sides() {
		from := s.out[l.From]
		v := value{at: c.Z, norm: norms[s], raw: l.Norm && !l.ReLU, rectified: !l.Norm && l.ReLU}
		op := newConv(r, c, from, ws, norms[s], z, s == &b.train)
		if err := s.apply(i, v, op, from.node, append(from.inputs(), weights...)...); err != nil {
			return err
		}
	}
	return nil
}

// norm makes a normalisation of both graphs, its parameters and statistics.
func (b *builder) norm(d *Norm) (train, eval *norm) {
	m, a := b.m, b.m.run.arena
	train = newNorm(d, a, m.run.b)
	m.norms = append(m.norms, train)
	stats := func(mean, variance []float32) []Stat {
		return []Stat{{d.Name + ".running_mean", mean}, {d.Name + ".running_var", variance}}
	}
	mean, variance := train.runningMean, train.runningVar
	m.Stats = append(m.Stats, stats(mean, variance)...)
	if m.options.Precise {
		mean, variance = train.precise(a)
		m.Precise = append(m.Precise, stats(mean, variance)...)
	}
	b.param(d.Name+".weight", 0, true, d.C)
	b.param(d.Name+".bias", 0, false, d.C)
	return train, train.evaluation(a, mean, variance)
}

func (b *builder) add(i int, l space.Layer) error {
	z, x := b.train.out[l.From], b.train.out[l.Shortcut]
	if z.norm == nil || x.norm != nil && !x.raw || x.rectified {
		return errors.New("it adds what is not normalised, or has its ReLU still to come")
	}
	if x.pictures() && b.m.run.precision != kernel.F32 {
		return errors.New("it adds pictures, which are float32")
	}
	a := &Add{Name: l.Name, Z: z.at, ZNorm: z.description(), X: x.at, XNorm: x.description(), Linear: !l.ReLU}
	a.Out = b.m.Program.value(l.Out)
	b.forward(a)
	out := b.memory(l.Out)
	for _, s := range b.sides() {
		z, x := s.out[l.From], s.out[l.Shortcut]
		op := newAdd(b.m.run, a, l.Out, z, &x, out)
		inputs := append(append(s.named(z.inputs()...), x.node), s.named(x.inputs()...)...)
		if err := s.applyNodes(i, value{at: a.Out}, op, append(G.Nodes{z.node}, inputs...)...); err != nil {
			return err
		}
	}
	return nil
}

// activation writes the normalised output of layer i, which its readers would
// each compute, because there are several.
func (b *builder) activation(i int, l space.Layer) error {
	z := b.train.out[i]
	a := &Add{Name: l.Name + ".relu", Z: z.at, ZNorm: z.description(), X: None, Linear: z.raw,
		Out: b.m.Program.value(l.Out)}
	b.forward(a)
	out := b.memory(l.Out)
	for _, s := range b.sides() {
		z := s.out[i]
		op := newAdd(b.m.run, a, l.Out, z, nil, out)
		if err := s.apply(i, value{at: a.Out}, op, z.node, z.inputs()...); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) maxPool(i int, l space.Layer) error {
	z := b.train.out[l.From]
	if z.norm == nil || z.raw {
		return errors.New("it reads what is not normalised")
	}
	p := &MaxPool{Name: l.Name, Z: z.at, Norm: z.description(), Out: b.m.Program.value(l.Out)}
	b.forward(p)
	out := b.memory(l.Out)
	for _, s := range b.sides() {
		z := s.out[l.From]
		op := newMaxPool(b.m.run, l.Name, l.In, z, out)
		if err := s.apply(i, value{at: p.Out}, op, z.node, z.inputs()...); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) pool(i int, l space.Layer) error {
	z := b.train.out[l.From]
	if z.raw || z.rectified {
		return errors.New("it reads what is normalised without a ReLU, or has a ReLU without a norm")
	}
	if z.pictures() && b.m.run.precision != kernel.F32 {
		return errors.New("it reads pictures, which are float32")
	}
	b.forward(&Pool{Z: z.at, Norm: z.description()})
	for _, s := range b.sides() {
		z := s.out[l.From]
		s.run.head = newHead(b.m.run, l.In, b.m.Net.Classes, z.norm)
		if s == &b.train {
			s.run.head.training()
		}
		if err := s.apply(i, value{at: None}, newPool(s.run.head), z.node, z.inputs()...); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) linear(i int, l space.Layer) error {
	b.forward(&Linear{Name: l.Name, C: l.In.C, Classes: l.Out.C})
	weight, bias := l.Name+".weight", l.Name+".bias"
	b.param(weight, l.In.C, true, l.Out.C, l.In.C)
	b.param(bias, 0, false, l.Out.C)
	for _, s := range b.sides() {
		if err := s.apply(i, value{at: None}, newLinear(s.run.head), s.out[l.From].node, weight, bias); err != nil {
			return err
		}
	}
	return nil
}

// param makes a parameter and its node in both graphs.
func (b *builder) param(name string, fanIn int, decays bool, shape ...int) {
	b.paramOver(b.m.run.arena.Floats(tensor.Shape(shape).TotalSize()), name, fanIn, decays, shape...)
}

// paramOver is param with the value in memory of the caller.
func (b *builder) paramOver(value []float32, name string, fanIn int, decays bool, shape ...int) {
	a, n := b.m.run.arena, len(value)
	p := Param{Name: name, Shape: shape, Value: value, Velocity: a.Floats(n),
		Decays: decays || b.m.options.DecayAll, FanIn: fanIn}
	if b.m.options.Average {
		p.Average = a.Floats(n)
	}
	b.m.Params = append(b.m.Params, p)
	b.params = append(b.params, b.train.leaf(name, p.Value, shape...))
	b.eval.leaf(name, p.Value, shape...)
}

// leaf makes an input node over data. Each graph has tensor headers of its
// own: Gorgonia writes into them.
func (s *side) leaf(name string, data []float32, shape ...int) *G.Node {
	n := G.NewTensor(s.g, G.Float32, len(shape), G.WithShape(shape...), G.WithName(name),
		G.WithValue(dense(data, shape...)))
	s.nodes[name] = n
	return n
}

func (s *side) named(names ...string) (nodes G.Nodes) {
	for _, name := range names {
		nodes = append(nodes, s.nodes[name])
	}
	return nodes
}

// apply makes op(x, the named inputs…) the output v of layer i.
func (s *side) apply(i int, v value, op G.Op, x *G.Node, inputs ...string) error {
	return s.applyNodes(i, v, op, append(G.Nodes{x}, s.named(inputs...)...)...)
}

func (s *side) applyNodes(i int, v value, op G.Op, inputs ...*G.Node) (err error) {
	v.node, err = G.ApplyOp(op, inputs...)
	s.out[i] = v
	return err
}
