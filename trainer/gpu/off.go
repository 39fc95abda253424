//go:build !gpu

package gpu

import (
	"context"
	"errors"

	"igcsearch/space"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/graph"
)

// Built reports whether this program was built with GPU support.
const Built = false

var errOff = errors.New("no GPU: this igcsearch was built without GPUs: `make gpu` builds one that has them")

// Devices lists the GPUs of this machine: without the tag, there are none.
func Devices() ([]Info, error) { return nil, errOff }

// Open returns an error: nothing else here is ever called.
func Open(int) (*Device, error) { return nil, errOff }

// Device is a GPU.
type Device struct{}

func (*Device) Info() Info { return Info{} }
func (*Device) New(space.Network, int, *dataset.Set, Options) (*Model, error) {
	return nil, errOff
}
func (*Device) Workers(context.Context, space.Network, int, *dataset.Set) (int, error) {
	return 0, errOff
}
func (*Device) Bench(context.Context, space.Network, int, int, *dataset.Set) (Bench, error) {
	return Bench{}, errOff
}

// Model is a network on a GPU.
type Model struct{}

func (*Model) Model() *graph.Model { return nil }
func (*Model) Arithmetic() string  { return "" }
func (*Model) Train(context.Context, int, []int, []graph.Rates, func(int, float64, int) error) error {
	return errOff
}
func (*Model) Measure(context.Context, []int) error { return errOff }
func (*Model) Exchange() error                      { return errOff }
func (*Model) Evaluate(context.Context, *dataset.Split) (Score, error) {
	return Score{}, errOff
}
func (*Model) Push() error                                { return errOff }
func (*Model) Pull() error                                { return errOff }
func (*Model) Last() ([]float32, []int, []float32, error) { return nil, nil, nil, errOff }
func (*Model) Close()                                     {}
