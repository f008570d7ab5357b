"""The words of the training tasks: how people ask and how a plain answer sounds, in no domain. Our own words.

Slots: {a} {b} liked items, {x} the item meant, {want} "a cooperative game for 4 players", {keys} the same as keywords,
{one} "a board game" or "something", {good} "a good board game", {kind} "board games", {told} facts, {words} a text,
{d} an item disliked, {liked} and {disliked} lists of items.
"""

from __future__ import annotations

LIKE = (
    "I loved {a}. What should I try next?",
    "Can you recommend something like {a}?",
    "I really enjoyed {a} and {b}, what else is good?",
    "something similar to {a} please",
    "My favourites are {a} and {b}. Any suggestions?",
    "what would you recommend to a fan of {a}?",
    "I liked {a}, {b}. what should I get?",
    "Suggest {one} in the spirit of {a}.",
    "I know {a} already, is there anything like it?",
    "looking for something like {a} but different",
    "I like {a}, any {idea} for me?",
    "more like {a} and {b}",
    "{a} was great. What now?",
    "we had fun with {a}. what could come after it?",
)
CONTRAST = (
    "I loved {a}, but {d} was not for me. What next?",
    "{a} yes, {d} no. What do you suggest?",
    "Not like {d} please, more like {a}.",
    "I could not stand {d}. {a} is what I enjoy.",
    "{d} bored me and {a} was wonderful, any {idea}?",
    "My taste? {a}, and certainly not {d}.",
)
RATED = (
    "I liked {liked}. What else would I like?",
    "My favourites: {liked}.",
    "{liked}",
    "I gave {liked} a high rating, what should I try next?",
    "Someone who enjoys {liked} is looking for {one}.",
)
RATED_NOT = ("I did not like {disliked}.", "{disliked} was not for me.", "Nothing like {disliked} please.")
PLAIN = (
    "What should I try?",
    "Can you recommend {good}?",
    "Please suggest {one}.",
    "I need {one}, any ideas?",
    "Recommend me {good}.",
    "hi, what do you recommend?",
    "Give me a recommendation.",
    "I'd like to try something new, what have you got?",
    "What are good {kind}?",
)
FACTS_ASKED = (
    "I'm looking for {want}.",
    "Can you recommend {want}?",
    "I would like {want}",
    "any ideas for {want}?",
    "{want} please",
    "{keys}",
    "Do you have {want}?",
    "What is a good choice if I want {want}?",
    "My friend wants {want}. What do you suggest?",
    "hi! I'm after {want}",
    "I am in the mood for {want}, what do you suggest?",
    "recommend {want}",
    "is there {want}?",
    "I want to buy {want} for a friend.",
    "Find me {want}",
    "do you know {want}",
    "I'd love {want}!",
    "something with these: {keys}",
)
FACTS_HELD_OUT = (  # never in training: requests that measure it
    "Show me {want}.",
    "we want {want} for the weekend, what have you got?",
    "It should be {want}. Suggestions?",
    "Which one would you pick? I need {want}.",
    "Hello, my sister asked me for {want}",
    "could it be {want}?",
    "got {want}?",
    "Looking around for {want} today, help me choose.",
)
LOOKUP = (
    "{words}",
    "I'm looking for this: {words}",
    "Which one is it? {words}",
    "Find {words}",
    "Do you have {words}?",
    "I want {words}",
)
ASK_ITEM = (
    "What is {x}?",
    "Tell me about {x}.",
    "what do you know about {x}",
    "Can you describe {x}?",
    "I have never heard of {x}, what is it?",
)
TOLD = ("{x}: {told}.", "{told}.", "Here is what I know. {told}.")
UNNAMED = ("What is the title of {x}?", "How is {x} called?", "{x}: title?")
ANSWERS = (
    "You should try {x}.",
    "How about {x}?",
    "Do you know {x}? I think you would like it.",
    "I would recommend {x}.",
    "{x} is a great choice.",
    "Then {x} is worth a try.",
    "I think you would enjoy {x}!",
    "Maybe {x}? It is very good.",
    "{x} could be just right for you.",
    "Try {x}, many people love it.",
    "One that comes to mind is {x}.",
    "Sure! What about {x}?",
    "My suggestion is {x}.",
    "Have a look at {x}.",
    "I'd go for {x}.",
    "{x} fits that well.",
)
SMALL_TALK = (
    ("Hi there!", "Hello! What kind of {kind} do you like?"),
    ("hello, how are you?", "I am doing great, thanks! What are you in the mood for?"),
    ("Thank you so much, bye!", "You're welcome, enjoy it! Goodbye."),
    ("thanks for your help", "My pleasure! Have a nice day."),
    ("ok, sounds good", "Great, I hope you like it!"),
    ("good morning", "Good morning! Are you looking for {one}?"),
    ("That's funny.", "Ha, glad you think so! Is there anything else that you would like?"),
    ("Who are you?", "I am here to help you find {good}."),
    ("hey", "Hey! Tell me what you like."),
    ("what can you do?", "I can recommend {kind}. Tell me what you liked before."),
    ("Perfect, I'll take it.", "Wonderful, have fun with it!"),
    ("no thanks", "All right. Just ask if you need anything else."),
    ("you were very helpful", "I am glad to hear that!"),
    ("I don't know what I want", "No problem. What did you enjoy lately?"),
    ("lol", "Ha! Shall I suggest {one}?"),
)
