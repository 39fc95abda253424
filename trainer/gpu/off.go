//go:build !gpu

package gpu

import (
	"context"
	"errors"

	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// Built reports whether this program was built with GPU support.
const Built = false

var errOff = errors.New("no GPU: this igcsearch was built without GPUs: `make gpu` builds one that has them")

// Devices lists the GPUs of this machine: without the tag, there are none.
func Devices() ([]Info, error) { return nil, errOff }

// Open returns an error, so that no method of Device is ever called.
func Open(int) (*Device, error) { return nil, errOff }

// Device is a GPU.
type Device struct{}

func (*Device) Info() Info { return Info{} }
func (*Device) Close()     {}
func (*Device) Start(space.Network, int, *dataset.Set, trainer.Recipe) (trainer.Engine, error) {
	return nil, errOff
}
func (*Device) Workers(context.Context, space.Network, int, *dataset.Set) (int, error) {
	return 0, errOff
}
func (*Device) Bench(context.Context, space.Network, int, int, *dataset.Set, func(Bench)) (Bench, error) {
	return Bench{}, errOff
}
