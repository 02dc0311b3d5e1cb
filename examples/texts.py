"""Texts as word counts: which training messages are behind one answer, shown as texts."""

from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

import whence

good = ["good", "lovely", "great", "fine", "superb", "charming"]
bad = ["bad", "dull", "awful", "poor", "weak", "boring"]
things = ["plot", "cast", "music", "ending"]
messages = [f"a {word} film with a {word} {thing}" for word in good + bad for thing in things]
liked = [word in good for word in good + bad for _ in things]
messages += ["a superb film with a dull ending", "not good and not great"]
liked += [False, False]

vectorizer = CountVectorizer()
counts = vectorizer.fit_transform(messages)
model = LogisticRegression(tol=1e-8).fit(counts, liked)
objective = whence.from_sklearn(model, counts, liked)

text = "a superb cast"
explanation = whence.explain(objective, (vectorizer.transform([text]), [True]), k=2)
print(f'"{text}":', str(explanation).splitlines()[0])
for title, effects in (("helped", explanation.helpful), ("harmed", explanation.harmful)):
    for effect in effects:
        print(f"{title} by {effect.effect:+.3f}: {messages[effect.position]}")
explanation.report("texts.html", texts=messages, query_text=text)
