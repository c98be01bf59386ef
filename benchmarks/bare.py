"""A typer program of one command: what starting a command line costs at the least."""

import typer

app = typer.Typer()


@app.command()
def greet(name: str = typer.Option("world", help="Whom.")) -> None:
    """Say hello."""
    typer.echo(f"hello {name}")


if __name__ == "__main__":
    app()
