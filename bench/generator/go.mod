module penstock.dev/bench/generator

go 1.25
