package analysis

import "igcsearch/search/posterior"

// PosteriorUnder is NewPosterior with a model of a curve that was made before, which saves half of
// the time in simulations.
func PosteriorUnder(model posterior.Model, samples []Sample) *Posterior {
	return newScoredSamples(samples).posterior(model, true)
}
