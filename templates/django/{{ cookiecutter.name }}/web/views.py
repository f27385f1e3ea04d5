from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

import mlapp.django
from mlapp import MlappError


class FlowerForm(forms.Form):
    """The measurements of a flower, in cm."""

    sepal_length = forms.FloatField(min_value=0)
    sepal_width = forms.FloatField(min_value=0)
    petal_length = forms.FloatField(min_value=0)
    petal_width = forms.FloatField(min_value=0)


def show_page(request: HttpRequest) -> HttpResponse:
    """The form, and the species of the flower in it."""
    form = FlowerForm(request.GET or None)
    species = error = None
    if form.is_valid():
        try:
            [species] = mlapp.django.predict(form.cleaned_data)
        except MlappError as found:
            error = found.what
    return render(request, "page.html", {"form": form, "species": species, "error": error})
