package report

import "igcsearch/search"

// Forecast predicts the end of the study by its recorded epochs, with as many trials at once as run now.
func (r Results) Forecast() search.Forecast {
	running := 0
	for _, t := range r.Trials {
		if t.Status == search.Running {
			running++
		}
	}
	return search.Predict(search.Recorded(r.Trials), running)
}
