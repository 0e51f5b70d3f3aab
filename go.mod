module github.com/waggleq/waggle

go 1.26
