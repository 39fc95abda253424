package interchange

import (
	"cmp"
	_ "embed"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/template"

	"igcsearch/space"
	"igcsearch/trainer/graph"
)

//go:embed pytorch.tmpl
var pytorchText string

var pytorchTemplate = template.Must(template.New("pytorch").Parse(pytorchText))

// WritePyTorch writes a network as Python code: a class Net of PyTorch, with a line for each layer. The keys of its
// state_dict are the names of the network's tensors, so that load_state_dict takes them with strict = True. Its first
// weights are drawn from the distributions that our trainings begin with.
func WritePyTorch(w io.Writer, n space.Network, p space.Plan) error {
	m := module{net: n, named: make([]bool, len(n.Layers)), maker: map[string]string{}}
	for i, l := range n.Layers {
		m.reads(i, l.From)
		if l.Kind == space.Add {
			m.reads(i, l.Shortcut)
		}
	}
	for i, l := range n.Layers {
		m.layer(i, l)
	}
	return pytorchTemplate.Execute(w, map[string]any{
		"Name": n.Name, "Depth": n.Depth, "Params": n.Params(), "In": n.Input(), "Classes": n.Classes,
		"Command": Command(n, p), "Epsilon": graph.Epsilon, "Momentum": math.Round(1e6*(1-graph.RunningFactor(n))) / 1e6,
		"Uses": m.uses(), "Init": m.init(), "Forward": m.forward,
	})
}

// module collects the lines of a PyTorch module.
type module struct {
	net     space.Network
	named   []bool            // by layer: its output needs a variable of its own
	modules []string          // their names, in the order of the layers
	maker   map[string]string // of a module by its name: the expression that makes it
	forward []string
}

// reads notes that a layer reads the output of another one. The next layer finds it in x.
func (m *module) reads(layer, from int) {
	if from >= 0 && from != layer-1 {
		m.named[from] = true
	}
}

// uses says which of the template's classes and functions the module needs.
func (m *module) uses() map[string]bool {
	uses := map[string]bool{}
	use := func(what string, does bool) { uses[what] = uses[what] || does }
	for _, l := range m.net.Layers {
		use("maxpool", l.Kind == space.MaxPool)
		if l.Kind != space.Conv && l.Kind != space.IGC {
			continue
		}
		use("igc", interleaved(l))
		use("product", l.Kind == space.IGC && !interleaved(l))
		use("between", l.Between)
		use("fusion", l.Branches > 1)
		use("steps", l.Kind == space.IGC || l.StepIn > 1 || l.StepOut > 1)
	}
	return uses
}

// add declares a module.
func (m *module) add(name, maker string) {
	m.modules, m.maker[name] = append(m.modules, name), maker
}

// layer adds the modules of layer i and its line of the forward pass.
func (m *module) layer(i int, l space.Layer) {
	x := m.value(l.From)
	switch l.Kind {
	case space.Conv, space.IGC:
		m.add(l.Name, maker(l))
		x = fmt.Sprintf("self.%s(%s)", l.Name, x)
		if l.Norm {
			m.add(l.NormName(), fmt.Sprintf("norm(%d)", l.Out.C))
			x = fmt.Sprintf("self.%s(%s)", l.NormName(), x)
		}
		if l.ReLU {
			x = fmt.Sprintf("relu(%s)", x)
		}
	case space.Add:
		x = fmt.Sprintf("%s + %s", x, m.value(l.Shortcut))
		if l.ReLU {
			x = "relu(" + x + ")"
		}
	case space.MaxPool:
		x = fmt.Sprintf("max_pool2d(%s, 3, 2, 1)", x)
	case space.Pool:
		x += ".mean((2, 3))"
	case space.Linear:
		m.add(l.Name, fmt.Sprintf("nn.Linear(%d, %d)", l.In.C, l.Out.C))
		x = fmt.Sprintf("self.%s(%s)", l.Name, x)
	default:
		panic(fmt.Sprintf("interchange: no line for a layer of the kind %s", l.Kind))
	}
	if i == len(m.net.Layers)-1 {
		m.forward = append(m.forward, "return "+x)
		return
	}
	line := m.value(i) + " = " + x
	if l.Out != l.In && l.Kind != space.Pool {
		line += fmt.Sprintf("  # (B, %d, %d, %d)", l.Out.C, l.Out.H, l.Out.W)
	}
	m.forward = append(m.forward, line)
}

// value is the variable that holds the output of a layer.
func (m *module) value(layer int) string {
	switch {
	case layer < 0 || !m.named[layer]:
		return "x"
	case m.net.Layers[layer].Kind == space.MaxPool:
		return "pooled" // its name, max, is a function of Python
	}
	return strings.ReplaceAll(m.net.Layers[layer].Name, ".", "_")
}

// maker is the expression that makes a convolution or an IGC block.
func maker(l space.Layer) string {
	class, c := "Conv", convs(l)[0]
	switch {
	case interleaved(l):
		class = "IGC"
	case l.Kind == space.IGC:
		class = "Product"
	case c.branches > 1:
		class = "Fusion"
	}
	kernel := strconv.Itoa(c.kh)
	if c.kh != c.kw {
		kernel = fmt.Sprintf("(%d, %d)", c.kh, c.kw)
	}
	text := fmt.Sprintf("%s(%d, %d, %s", class, c.in, c.out, kernel)
	option := func(key string, value, usual int) {
		if value != usual {
			text += fmt.Sprintf(", %s=%d", key, value)
		}
	}
	option("stride", c.stride, 1)
	option("groups", c.groups, 1)
	option("step_in", c.stepIn, 1)
	option("step_out", c.stepOut, 1)
	option("branches", c.branches, 1)
	if class == "Product" {
		var mixes []string
		for _, m := range l.Mixes {
			mixes = append(mixes, fmt.Sprintf("(%d, %d)", m.K, m.Step))
		}
		text += ", mixes=[" + strings.Join(mixes, ", ") + "]"
	}
	if l.Between {
		text += ", between=True"
	}
	return text + ")"
}

// interleaved reports whether a product is an interleaved group convolution block.
func interleaved(l space.Layer) bool {
	return l.Kind == space.IGC && len(l.Mixes) == 1 && l.Mixes[0] == space.Mix{K: l.Groups, Step: l.Out.C / l.Groups}
}

// init is the lines that make the modules. One that is inside another comes behind it, and one that only holds others is
// an empty nn.Module.
func (m *module) init() (lines []string) {
	made := map[string]bool{}
	var declare func(name string)
	declare = func(name string) {
		if made[name] {
			return
		}
		made[name] = true
		if outer := strings.LastIndexByte(name, '.'); outer >= 0 {
			declare(name[:outer])
		}
		lines = append(lines, fmt.Sprintf("self.%s = %s", name, cmp.Or(m.maker[name], "nn.Module()")))
	}
	for _, name := range m.modules {
		declare(name)
	}
	return lines
}
