package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"

	"igcsearch/space"
)

// Layers are the layers of a network that was built by a plan.
type Layers struct {
	space.Network
	Plan space.Plan
}

// layerJSON is a layer as JSON prints it.
type layerJSON struct {
	Name         string    `json:"name"`
	Kind         string    `json:"kind"`
	Kernel       string    `json:"kernel,omitempty"`
	Stride       int       `json:"stride,omitempty"`
	Partitions   int       `json:"partitions,omitempty"` // of the primary convolution
	StepIn       int       `json:"step_in,omitempty"`    // how far apart the channels of a partition are; 1 if it is not there
	StepOut      int       `json:"step_out,omitempty"`
	Secondary    int       `json:"secondary_partitions,omitempty"` // of the only 1×1 convolution of a product
	Mixes        []mixJSON `json:"mixes,omitempty"`                // the 1×1 convolutions of a product of more than two
	From         string    `json:"from"`                           // the layer that it reads
	Shortcut     string    `json:"shortcut,omitempty"`             // what is added
	In           [3]int    `json:"in"`                             // channels, rows, columns
	Out          [3]int    `json:"out"`
	Params       int       `json:"params"`
	MultiplyAdds int64     `json:"multiply_adds"`
}

// mixJSON is a 1×1 convolution of a product as JSON prints it.
type mixJSON struct {
	Partitions int `json:"partitions"`
	Channels   int `json:"channels"` // of a partition
	Step       int `json:"step"`     // how far apart they are
}

// Print writes the layers in one of the formats table and json.
func (n Layers) Print(stdout io.Writer, format string) error {
	if format == "json" {
		layers := []layerJSON{}
		for _, l := range n.Network.Layers {
			layers = append(layers, n.layerJSON(l))
		}
		return JSON(stdout, struct {
			Name         string      `json:"name"`
			Depth        int         `json:"depth"`
			Params       int         `json:"params"`
			MultiplyAdds int64       `json:"multiply_adds"`
			Layers       []layerJSON `json:"layers"`
		}{n.Name, n.Depth, n.Params(), n.MultiplyAdds(), layers})
	}
	t := NewTable("<layer", "<what", "<output", "params", "multiply–adds")
	for _, l := range n.Network.Layers {
		params, multiplyAdds := "", ""
		if l.Params > 0 {
			params, multiplyAdds = humanize.Comma(int64(l.Params)), humanize.Comma(l.MultiplyAdds)
		}
		t.Add(l.Name, n.describe(l), l.Out.String(), params, multiplyAdds)
	}
	_, err := fmt.Fprintf(stdout, "%s\n%s, D = %d, on pictures of %v, %d classes: %s parameters, %s multiply–adds.\n",
		t, n.Name, n.Depth, n.Plan.In, n.Plan.Classes, humanize.Comma(int64(n.Params())),
		humanize.Comma(n.MultiplyAdds()))
	return err
}

// name names the layer with an index.
func (n Layers) name(layer int) string {
	if layer < 0 {
		return "pictures"
	}
	return n.Network.Layers[layer].Name
}

func (n Layers) layerJSON(l space.Layer) layerJSON {
	shape := func(s space.Shape) [3]int { return [3]int{s.C, s.H, s.W} }
	j := layerJSON{Name: l.Name, Kind: string(l.Kind), From: n.name(l.From), In: shape(l.In), Out: shape(l.Out),
		Params: l.Params, MultiplyAdds: l.MultiplyAdds}
	switch l.Kind {
	case space.IGC:
		if len(l.Mixes) == 1 {
			j.Secondary = l.Out.C / l.Mixes[0].K
		} else {
			for _, m := range l.Mixes {
				j.Mixes = append(j.Mixes, mixJSON{Partitions: l.Out.C / m.K, Channels: m.K, Step: m.Step})
			}
		}
		fallthrough
	case space.Conv:
		if l.StepIn > 1 || l.StepOut > 1 {
			j.StepIn, j.StepOut = l.StepIn, l.StepOut
		}
		j.Kernel, j.Stride, j.Partitions = fmt.Sprintf("%dx%d", l.KH, l.KW), l.Stride, l.Groups
	case space.Add:
		j.Shortcut = n.name(l.Shortcut)
	}
	return j
}

// describe says what a layer computes.
func (n Layers) describe(l space.Layer) string {
	switch l.Kind {
	case space.Add:
		if !l.ReLU {
			return "+ " + n.name(l.Shortcut)
		}
		return fmt.Sprintf("+ %s, ReLU", n.name(l.Shortcut))
	case space.MaxPool:
		return "max pool 3×3, stride 2"
	case space.Pool:
		return "average pool"
	case space.Linear:
		return "linear"
	}
	parts := []string{l.String()}
	switch {
	case l.StepIn > 1 && l.StepIn == l.Groups && l.StepOut == l.Groups:
		parts = append(parts, "interleaved")
	case l.StepIn > 1 || l.StepOut > 1:
		parts = append(parts, fmt.Sprintf("channels %d apart to %d apart", l.StepIn, l.StepOut))
	}
	if l.Between {
		parts = append(parts, "a ReLU between")
	}
	if l.Stride > 1 {
		parts = append(parts, fmt.Sprintf("stride %d", l.Stride))
	}
	if l.Norm {
		parts = append(parts, "BN")
	}
	if l.ReLU {
		parts = append(parts, "ReLU")
	}
	return strings.Join(parts, ", ")
}
