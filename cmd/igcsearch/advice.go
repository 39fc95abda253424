package main

import (
	"errors"

	"igcsearch/cmd/igcsearch/cluster"
)

// advice says what a user can do about an error, "" if there is nothing to add
// to its text. Packages that know no flags leave the advice to the command.
func advice(err error) string {
	switch {
	case errors.Is(err, cluster.ErrNoSlurm):
		return "run this on a machine of the Slurm cluster, or see with --dry-run what it would submit"
	}
	return ""
}
